#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, its driver and a CUDA toolkit: gpu-check and PyTorch in turn, in one run within a time limit.
#
#   tools/gpu_check.sh --out DIR [--limit SECONDS] [--only kernels,networks,training] [--backbones NAME,NAME]
#                      [--program FILE] [--python PYTHON] [-- WORDS FOR BOTH PROGRAMS]
#
# Carry along: this script, gpu-check.gz (CONTRIBUTING.md says how to make it), peer_gpu.py and peer_models.py, in one folder.
# DIR gets ichd.json, peer.json, table.txt, table.md and log.txt; another run into it adds to them, so that the work can be done
# in pieces: say kernels first, then backbones one after the other. Kernels come first, then backbone by backbone gpu-check and
# PyTorch by turns; each gets an even share of the time that is left. Without PyTorch gpu-check runs alone. `-- --device cpu
# --side 64 --batches 2 --train-batch 2 --seconds 0` tries it out without a GPU.
#
# Ends with 0 if everything was measured and right, 1 if not (see table.txt), 64 for wrong use, 69 if the device failed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

out='' limit=540 only=kernels,networks,training program='' python=python3
backbones=vgg16,resnet50,inception_v3,mobilenet_v2,xception,efficientnet_b0,efficientnet_b2,efficientnet_b3,densenet121
wrong_use() { echo "gpu_check.sh: $1" >&2; exit 64; }
while [ $# -gt 0 ]; do
  case $1 in
    --) shift; break ;;
    --out | --limit | --only | --backbones | --program | --python)
      [ $# -ge 2 ] || wrong_use "$1 needs a value"
      declare "${1#--}=$2"; shift 2 ;;
    *) wrong_use "$1 is not known; the head of this file lists what is" ;;
  esac
done
both=("$@")
[ -n "$out" ] || wrong_use "--out DIR is missing"
[[ $limit =~ ^[0-9]+$ ]] || wrong_use "--limit takes whole seconds"
for part in ${only//,/ }; do
  case $part in kernels | networks | training) ;; *) wrong_use "there is no part $part" ;; esac
done
mkdir -p "$out" || exit 74
out=$(cd "$out" && pwd)
exec > >(tee -a "$out/log.txt") 2>&1

if [ -z "$program" ]; then
  for program in "$here/gpu-check.gz" "$here/gpu-check" "$here/../gpu-check.gz" "$here/../target/release/gpu-check"; do
    [ -e "$program" ] && break
  done
fi
[ -e "$program" ] || wrong_use "gpu-check is not here; --program FILE says where it is"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $program in
  *.gz) gzip -dc "$program" > "$work/gpu-check" || exit 74 ;;
  *) cp "$program" "$work/gpu-check" || exit 74 ;;
esac
chmod +x "$work/gpu-check"

# Headers where CubeCL looks for them, and NVRTC where the loader does.
wheels=$("$python" -c 'import site, glob; print(" ".join(f for s in site.getsitepackages() for f in glob.glob(s + "/nvidia/cu1*")))' 2>/dev/null)
nvcc=$(readlink -f "$(command -v nvcc || echo /nothing)")
for toolkit in "${CUDA_PATH:-}" /usr/local/cuda "${nvcc%/bin/nvcc}" $wheels; do
  if [ -e "$toolkit/include/cuda_fp16.h" ]; then
    export CUDA_PATH=$toolkit
    export LD_LIBRARY_PATH="$toolkit/lib64:$toolkit/lib:$toolkit/targets/x86_64-linux/lib:${LD_LIBRARY_PATH:-}"
    break
  fi
done
echo "== $(date -u +%FT%TZ), toolkit ${CUDA_PATH:-not found}, limit $limit s"
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,temperature.gpu --format=csv 2>/dev/null

has_torch=no
if "$python" -c 'import torch, torchvision' 2>/dev/null; then has_torch=yes; else echo "PyTorch and torchvision are not here: gpu-check runs alone"; fi
# Seconds kept for the tables.
reserve=15
[ "$limit" -gt 60 ] || reserve=5
begun=$SECONDS
left() { echo $((limit - reserve - (SECONDS - begun))); }

# Programs by turns.
steps=()
case ,$only, in *,kernels,*) steps+=("ichd kernels -") ;; esac
for backbone in ${backbones//,/ }; do
  for part in networks training; do
    case ,$only, in
      *,$part,*)
        steps+=("ichd $part $backbone")
        [ $has_torch = no ] || steps+=("torch $part $backbone") ;;
    esac
  done
done

# The first step has all kernels to compile, as many as a dozen networks.
weight() { case $1 in *kernels*) echo 4 ;; *) echo 1 ;; esac; }
weights=0
for step in "${steps[@]}"; do weights=$((weights + $(weight "$step"))); done

status=0
worse() { [ "$1" -le "$status" ] || status=$1; }
for at in "${!steps[@]}"; do
  read -r who part backbone <<<"${steps[$at]}"
  time_left=$(left)
  if [ "$time_left" -le 5 ]; then
    echo "== the time is up before $who $part $backbone"
    worse 1
    break
  fi
  share=$((time_left * $(weight "${steps[$at]}") / weights))
  weights=$((weights - $(weight "${steps[$at]}")))
  [ "$share" -ge 20 ] || share=20
  words=(--only "$part" --limit "$share")
  [ "$backbone" = - ] || words+=(--backbones "$backbone")
  echo "== $who ${words[*]} (${time_left} s left)"
  # A case that was begun may take longer than the share; the run may not take longer than the limit. What was found till
  # then is in the file.
  if [ "$who" = ichd ]; then
    timeout -k 3 "$time_left" "$work/gpu-check" "${words[@]}" --json "$out/ichd.json" "${both[@]}"
  else
    timeout -k 3 "$time_left" "$python" "$here/peer_gpu.py" "${words[@]}" --json "$out/peer.json" "${both[@]}"
  fi
  code=$?
  [ $code = 0 ] || echo "== ended with $code"
  case $code in
    0) ;;
    64 | 69 | 74) worse $code; [ "$who" = torch ] || [ $code = 69 ] || break ;;
    *) worse 1 ;;
  esac
done

if [ $has_torch = yes ] && [ -e "$out/ichd.json" ]; then
  "$python" "$here/peer_gpu.py" --only none --json "$out/peer.json" --against "$out/ichd.json" --table "$out/table" || worse 1
fi
echo "== done after $((SECONDS - begun)) s: $(ls "$out" | tr '\n' ' ')"
exit $status
