#!/bin/sh
# Makes the model that comes with the program, plugins/mobilenet/models/phantom_only/1: mobilenet_v2 trained on synthetic
# heads and nothing else. Training takes 40 minutes on two cores (14 epochs of 170 seconds), heads, cache and measuring some
# minutes more, and all of it 10 GB in the folder WORK.
#
# usage: tools/make_phantom_model.sh WORK        (ICHD: the program, built with --release)
set -eu
work=${1:?usage: tools/make_phantom_model.sh WORK}
ichd=${ICHD:-target/release/ichd}
target=plugins/mobilenet/models/phantom_only/1
mkdir -p "$work" "$target"
# Studies that train and choose the epoch (seed 41), and others that nothing was chosen by (seed 977).
train_heads='--studies 200 --seed 41 --bleeds 0.7'
new_heads='--studies 60 --seed 977 --bleeds 0.7'
# shellcheck disable=SC2086 # they are several words each
[ -d "$work/heads" ] || "$ichd" phantom --out "$work/heads" $train_heads
# shellcheck disable=SC2086
[ -d "$work/new-heads" ] || "$ichd" phantom --out "$work/new-heads" $new_heads
cat > "$work/daemon.yaml" <<EOF
model: { path: models }
train:
  runs_path: runs
  cache_path: cache
  epochs: 14
  learning_rate: 0.001
  patience: 0
  seed: 2019
  stored: f16
  balance: { epidural_times: 1 }
  augment: { vertical: 0 }
EOF
resume=
[ ! -d "$work/runs/phantoms" ] || resume=--resume
[ -d "$work/models/phantoms/1" ] ||
    "$ichd" train --config "$work/daemon.yaml" --data "$work/heads" --labels "$work/heads/labels.csv" \
        --backbone mobilenet_v2 --side 128 --name phantoms $resume
"$ichd" eval --config "$work/daemon.yaml" --data "$work/new-heads" --labels "$work/new-heads/labels.csv" \
    --model phantoms --out "$work/eval"
cp "$work/models/phantoms/1/model.yaml" "$work/models/phantoms/1/weights.safetensors" "$target/"
{
    echo '# phantom_only: for demonstrations and tests, never for patients'
    echo
    echo 'This model has seen nothing but the synthetic heads that `ichd phantom` draws. It finds the drawn blood in them; what it'
    echo 'says of a real head means nothing. `tools/make_phantom_model.sh` makes it anew.'
    echo
    echo '## On 60 studies with another seed, by which nothing was chosen'
    echo
    cat "$work/eval/eval.md"
    echo
    # The trainer's own card, its heading one level down, without the folders of the machine that made it. How to repeat it
    # begins with the heads and the settings, which this script makes.
    sed -e "s#$work/##g" -e "s#$ichd#ichd#g" "$work/models/phantoms/1/README.md" | while IFS= read -r line; do
        case $line in
        '## How to repeat')
            printf '###%s\n\n' "${line#??}"
            echo 'All of it: `tools/make_phantom_model.sh WORK`, which writes the settings above. Step by step:'
            echo
            echo "    ichd phantom --out heads $train_heads"
            echo "    ichd phantom --out new-heads $new_heads"
            # The empty line behind the heading stands above already.
            IFS= read -r line
            ;;
        '#'*) printf '#%s\n' "$line" ;;
        *) printf '%s\n' "$line" ;;
        esac
    done
} > "$target/README.md"
