//! What the CPU does for networks that score, against the same written with the operations that every device has, and
//! against plain definitions.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use ichd_kernels::{
    Act, After, Dense, Filter, Growing, Plane, Pool, Products, Way, activate, chain, conv2d, conv2d_packed,
    depthwise_conv2d, has_half_products, join_channels, line, mean_of_pixels, pack, pool2d, shared_out,
};
use proptest::prelude::*;
use rayon::prelude::*;

/// Values between -1 and 1 that look random.
fn tensor<const D: usize>(shape: [usize; D], seed: usize, dtype: DType) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values: Vec<f64> =
        (0..count).map(|at| ((at * 7919 + seed * 104_729 + 13) % 2003) as f64 / 1001.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), dtype))
}

fn read<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().convert_dtype(DType::F64).try_to_vec().expect("numbers")
}

fn worst<const D: usize>(found: Tensor<D>, expected: Tensor<D>) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let differences = read(found).into_iter().zip(read(expected)).map(|(a, b)| (a - b).abs());
    // What is no number is worse than every number.
    differences.fold(0.0, |most, one| if one <= most { most } else { one })
}

static SKIPPED: Once = Once::new();

/// A convolution of random shape, with everything that can come before and after it.
#[derive(Clone, Debug)]
struct Case {
    plane: Plane,
    dims: [usize; 4],
    outputs: usize,
    act: Act,
    bias: bool,
    added: bool,
    way: u8,
    /// Channels of wider images among which the input lies.
    around: usize,
}

fn any_case() -> impl Strategy<Value = Case> {
    let side = prop_oneof![Just([1, 1]), Just([3, 3]), [1usize..6, 1usize..8]];
    let channels = prop_oneof![1usize..40, Just(32), Just(48), Just(64), Just(96), Just(512)];
    let plane = (side, prop_oneof![Just([1, 1]), [1usize..4, 1usize..4]], [0usize..4, 0usize..4, 0usize..4, 0usize..4]);
    let act = prop_oneof![Just(Act::Linear), Just(Act::Relu), Just(Act::Relu6), Just(Act::Silu)];
    let sizes = (1usize..4, 1usize..14, 1usize..14, channels, 1usize..100);
    (plane, sizes, act, any::<[bool; 2]>(), 0u8..3, 0usize..3).prop_filter_map(
        "fits",
        |((kernel, stride, padding), (n, height, width, channels, outputs), act, [bias, added], way, around)| {
            let plane = Plane { kernel, stride, padding };
            plane.output([height, width])?;
            let way = if kernel == [1, 1] && padding == [0; 4] { way } else { 0 };
            Some(Case { plane, dims: [n, height, width, channels], outputs, act, bias, added, way, around })
        },
    )
}

fn check(case: &Case, dtype: DType, products: Products, allowed: f64) -> Result<(), TestCaseError> {
    let Case { plane, dims: [n, height, width, inputs], outputs, act, .. } = *case;
    // The input as some of the channels of wider images.
    let wide = tensor([n, height, width, inputs + 2 * case.around], 1, dtype);
    let x = wide.narrow(3, case.around, inputs);
    let weight = tensor([outputs, inputs, plane.kernel[0], plane.kernel[1]], 2, dtype) * 0.25;
    let [down, across] = plane.output([height, width]).expect("it fits");
    let after = || After {
        bias: case.bias.then(|| tensor([outputs], 3, dtype)),
        addend: case.added.then(|| tensor([n, down, across, outputs], 4, dtype)),
        act,
    };
    let lines = [tensor([inputs], 5, dtype), tensor([inputs], 6, dtype)];
    let factors = tensor([n, 1, 1, inputs], 7, dtype);
    let along = |vector: &Tensor<1>| vector.clone().reshape([1, 1, 1, inputs]);
    let (way, entered) = match case.way {
        0 => (Way::AsItIs, x.clone()),
        1 => {
            let entered = activate(x.clone() * along(&lines[0]) + along(&lines[1]), Act::Relu);
            (Way::Line(lines, Act::Relu), entered)
        }
        _ => (Way::Scaled(factors.clone()), x.clone() * factors),
    };
    let packed = pack(weight.clone(), plane.stride, products);
    let rounds = products == Products::Half;
    prop_assert_eq!(packed.dtype(), if rounds { DType::BF16 } else { dtype });
    let found = conv2d_packed(x, way, packed, outputs, plane, after());
    // Without any of it, and in f64: the convolution that `layers.rs` holds against its definition.
    let exact = |x: Tensor<4>| if rounds { x.cast(DType::BF16).cast(DType::F64) } else { x.cast(DType::F64) };
    let sums = conv2d(exact(entered), exact(weight), plane, After::nothing());
    let after = after();
    let expected = After {
        bias: after.bias.map(|bias| bias.cast(DType::F64)),
        addend: after.addend.map(|addend| addend.cast(DType::F64)),
        act,
    }
    .apply(sums);
    let scale = 1.0 + read(expected.clone()).into_iter().map(f64::abs).fold(0.0, f64::max);
    let off = worst(found, expected);
    prop_assert!(off < allowed * scale, "{dtype:?}: off by {off:e} of {scale}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn packed_convolutions_are_convolutions(case in any_case()) {
        check(&case, DType::F64, Products::Whole, 1e-13)?;
        check(&case, DType::F32, Products::Whole, 2e-5)?;
    }

    /// Against the same with both factors rounded to bfloat16 and everything else in f64.
    #[test]
    fn products_in_bfloat16_are_those_of_rounded_factors(case in any_case()) {
        if !has_half_products() {
            SKIPPED.call_once(|| eprintln!("skipped: this processor has no AVX512-BF16"));
            return Ok(());
        }
        let [n, height, width, channels] = case.dims;
        let case = Case { dims: [n, height, width, channels.next_multiple_of(2).max(8)], ..case };
        // Behind a line, rounded once here and twice there, a value may fall on the other side of a rounding.
        check(&case, DType::F32, Products::Half, if case.way == 1 { 2e-3 } else { 2e-5 })?;
    }

    #[test]
    fn pools_follow_their_definition(
        side in 1usize..5, stride in 1usize..4, padding in [0usize..3, 0usize..3, 0usize..3, 0usize..3],
        dims in [1usize..3, 1usize..10, 1usize..10, 1usize..90], kind in 0u8..3,
    ) {
        let plane = Plane { kernel: [side; 2], stride: [stride; 2], padding };
        prop_assume!(padding.iter().all(|zeros| *zeros < side));
        let Some([down, across]) = plane.output([dims[1], dims[2]]) else { return Ok(()) };
        let kind = [Pool::Maximum, Pool::Average, Pool::AverageWithZeros][usize::from(kind)];
        let x = tensor(dims, 1, DType::F64);
        let values = read(x.clone());
        let found = read(pool2d(x, plane, kind));
        let [n, height, width, channels] = dims;
        prop_assert_eq!(found.len(), n * down * across * channels);
        for (at, found) in found.into_iter().enumerate() {
            let (channel, pixel) = (at % channels, at / channels);
            let (image, row, column) = (pixel / (down * across), pixel / across % down, pixel % across);
            let mut inside = Vec::new();
            for (dy, dx) in (0..side).flat_map(|dy| (0..side).map(move |dx| (dy, dx))) {
                let y = (row * stride + dy).checked_sub(padding[0]).filter(|y| *y < height);
                let x = (column * stride + dx).checked_sub(padding[1]).filter(|x| *x < width);
                if let (Some(y), Some(x)) = (y, x) {
                    inside.push(values[((image * height + y) * width + x) * channels + channel]);
                }
            }
            let sum: f64 = inside.iter().sum();
            let expected = match kind {
                Pool::Maximum => inside.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                Pool::Average => sum / inside.len() as f64,
                Pool::AverageWithZeros => sum / (side * side) as f64,
            };
            // A square that lies outside altogether has no mean.
            prop_assert!(inside.is_empty() || (found - expected).abs() < 1e-12, "{} instead of {}", found, expected);
        }
    }
}

/// Convolutions with one tap around a depthwise one.
#[derive(Clone, Debug)]
struct ChainCase {
    plane: Plane,
    dims: [usize; 4],
    /// Channels between, and behind; 0: no such convolution.
    wide: usize,
    outputs: usize,
    acts: [Act; 3],
    added: bool,
    biased: bool,
}

fn any_chain() -> impl Strategy<Value = ChainCase> {
    let act = || prop_oneof![Just(Act::Linear), Just(Act::Relu), Just(Act::Relu6), Just(Act::Silu)];
    let padding = [0usize..4, 0usize..4, 0usize..4, 0usize..4];
    let plane = ([1usize..7, 1usize..7], prop_oneof![Just([1, 1]), Just([2, 2]), [1usize..4, 1usize..4]], padding);
    let channels = || prop_oneof![1usize..40, Just(48), Just(160)];
    let wide = prop_oneof![Just(0), channels(), Just(512), 250usize..300];
    let outputs = prop_oneof![Just(0), channels()];
    let sizes = (1usize..3, 1usize..64, 1usize..30, channels());
    (plane, sizes, wide, outputs, [act(), act(), act()], any::<[bool; 2]>()).prop_filter_map(
        "fits",
        |((kernel, stride, padding), (n, height, width, channels), wide, outputs, acts, [added, biased])| {
            let plane = Plane { kernel, stride, padding };
            plane.output([height, width])?;
            Some(ChainCase { plane, dims: [n, height, width, channels], wide, outputs, acts, added, biased })
        },
    )
}

/// All at once and layer by layer: the same to the last bit.
fn check_chain(case: &ChainCase, threads: usize, dtype: DType, products: Products) -> Result<(), TestCaseError> {
    let ChainCase { plane, dims: [n, height, width, inputs], wide, outputs, acts, .. } = *case;
    let [down, across] = plane.output([height, width]).expect("it fits");
    let dense = |inputs: usize, outputs: usize, act: Act, seed: usize| Dense {
        packed: pack(tensor([outputs, inputs, 1, 1], seed, dtype), [1, 1], products),
        bias: tensor([outputs], seed + 1, dtype),
        outputs,
        act,
    };
    let x = tensor([n, height, width, inputs], 1, dtype);
    let between = if wide == 0 { inputs } else { wide };
    let expand = (wide > 0).then(|| dense(inputs, wide, acts[0], 2));
    let filter = Filter {
        weight: tensor([between, 1, plane.kernel[0], plane.kernel[1]], 4, dtype),
        bias: case.biased.then(|| tensor([between], 5, dtype)),
        plane,
        act: acts[1],
    };
    let project = (outputs > 0).then(|| dense(between, outputs, acts[2], 6));
    let addend = (outputs > 0 && case.added).then(|| tensor([n, down, across, outputs], 8, dtype));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let found = pool.install(|| chain(&x, expand.as_ref(), &filter, project.as_ref(), addend.as_ref()));
    let Some(found) = found else {
        prop_assert!(threads > 1, "one thread always has something to do");
        return Ok(());
    };
    let point = Plane::square(1, 1);
    let layer = |x: Tensor<4>, dense: Dense, addend: Option<Tensor<4>>| {
        let after = After { bias: Some(dense.bias), addend, act: dense.act };
        conv2d_packed(x, Way::AsItIs, dense.packed, dense.outputs, point, after)
    };
    let widened = match expand {
        Some(dense) => layer(x, dense, None),
        None => x,
    };
    let bias = filter.bias.unwrap_or_else(|| tensor([between], 0, dtype) * 0.0);
    let after = After { bias: Some(bias), addend: None, act: filter.act };
    let filtered = depthwise_conv2d(widened, filter.weight, plane, after);
    let expected = match project {
        Some(dense) => layer(filtered, dense, addend),
        None => filtered,
    };
    prop_assert_eq!(worst(found, expected), 0.0, "{} threads, {:?}", threads, dtype);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn chains_are_their_layers(case in any_chain(), threads in 1usize..4) {
        check_chain(&case, threads, DType::F32, Products::Whole)?;
        check_chain(&case, threads, DType::F64, Products::Whole)?;
        // Where the processor has no such products, and for odd numbers of channels, the same as the first.
        check_chain(&case, threads, DType::F32, Products::Half)?;
    }
}

#[test]
fn pieces_are_shared_out_once_each_and_come_back_in_order() {
    for threads in [1, 2, 3, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        for pieces in [0, 1, 2, 7, 33] {
            let taken: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
            let results = pool.install(|| {
                shared_out(pieces, |piece| {
                    taken[piece].fetch_add(1, Ordering::Relaxed);
                    // Work of its own inside, as a network's layers have.
                    (0..100).into_par_iter().map(|at| at * piece).sum::<usize>()
                })
            });
            assert_eq!(results, (0..pieces).map(|piece| 4950 * piece).collect::<Vec<_>>());
            assert!(taken.iter().all(|times| times.load(Ordering::Relaxed) == 1));
        }
    }
}

#[test]
fn what_is_not_a_number_shows_in_every_place_of_a_tile() {
    let mut values = vec![0.5f32; 28 * 16];
    values[5 * 16 + 3] = f32::NAN;
    let x = Tensor::<4>::from_data(TensorData::new(values, [1, 2, 14, 16]), &Device::flex());
    let packed = |products| pack(tensor([32, 16, 1, 1], 1, DType::F32), [1, 1], products);
    for (act, products) in [(Act::Relu, Products::Whole), (Act::Relu6, Products::Whole), (Act::Relu, Products::Half)] {
        let packed = packed(products);
        let after = After { bias: None, addend: None, act };
        let found = read(conv2d_packed(x.clone(), Way::AsItIs, packed.clone(), 32, Plane::square(1, 1), after));
        let wrong = found.iter().enumerate().filter(|(at, value)| value.is_nan() != (at / 32 == 5)).count();
        assert_eq!(wrong, 0, "{act:?}");
        let after = After { bias: Some(Tensor::zeros([16], &Device::flex())), addend: None, act };
        let found = read(depthwise_conv2d(x.clone(), tensor([16, 1, 1, 1], 1, DType::F32), Plane::square(1, 1), after));
        let wrong = found.iter().enumerate().filter(|(at, value)| value.is_nan() != (*at == 5 * 16 + 3)).count();
        assert_eq!(wrong, 0, "depthwise, {act:?}");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for (kernel, channels, outputs) in [(1, 512, 70), (3, 64, 100), (3, 20, 33), (7, 3, 64)] {
        let x = tensor([3, 19, 23, channels], 1, DType::F32);
        let weight = tensor([outputs, channels, kernel, kernel], 2, DType::F32);
        let packed = [Products::Whole, Products::Half].map(|products| pack(weight.clone(), [1, 1], products));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let plane = Plane::square(kernel, 1);
            let run = |packed: &Tensor<1>| {
                read(conv2d_packed(x.clone(), Way::AsItIs, packed.clone(), outputs, plane, After::nothing()))
            };
            pool.install(|| packed.each_ref().map(run))
        };
        let one = run(1);
        assert!(run(2) == one && run(7) == one, "{kernel} x {kernel} kernel");
    }
}

#[test]
fn an_image_scores_the_same_alone_and_among_others() {
    let x = tensor([5, 9, 11, 64], 1, DType::F32);
    for products in [Products::Whole, Products::Half] {
        let packed = pack(tensor([40, 64, 3, 3], 2, DType::F32), [1, 1], products);
        let run = |x| conv2d_packed(x, Way::AsItIs, packed.clone(), 40, Plane::square(3, 1), After::nothing());
        let alone = run(x.clone().narrow(0, 3, 1));
        assert_eq!(worst(run(x.clone()).narrow(0, 3, 1), alone), 0.0);
    }
}

#[test]
fn means_of_large_images_are_right_and_the_same_whoever_computes_them() {
    // Several runs of pixels, the last one short, and several groups of channels, the last one no whole vectors.
    let (height, width, channels) = (31, 40, 300);
    let x = tensor([3, height, width, channels], 1, DType::F64);
    let mean = x.clone().reshape([3, height * width, channels]).mean_dim(1).reshape([3, channels]);
    assert!(worst(mean_of_pixels(x.clone()), mean) < 1e-14);
    let x = tensor([3, height, width, channels], 1, DType::F32);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            // Three images on two threads: two of them alone, one by a team.
            let one = |image: usize| read(mean_of_pixels(x.clone().narrow(0, image, 1)));
            (read(mean_of_pixels(x.clone())), shared_out(3, one).concat())
        })
    };
    let (together, apart) = run(1);
    assert!(together == apart && run(2) == (together.clone(), apart.clone()) && run(5) == (together, apart));
}

#[test]
fn what_is_no_number_survives_a_pool_in_every_channel() {
    for channels in [1, 16, 64, 85] {
        for place in 0..4 {
            let values: Vec<f64> =
                (0..4 * channels).map(|at| if at / channels == place { f64::NAN } else { at as f64 }).collect();
            let x = Tensor::<4>::from_data(TensorData::new(values, [1, 2, 2, channels]), (&Device::flex(), DType::F64));
            for dtype in [FloatDType::F64, FloatDType::F32] {
                let plane = Plane { padding: [0; 4], ..Plane::square(2, 2) };
                let pooled = read(pool2d(x.clone().cast(dtype), plane, Pool::Maximum).cast(FloatDType::F64));
                assert!(pooled.len() == channels && pooled.iter().all(|value| value.is_nan()), "{channels}, {place}");
            }
        }
    }
}

#[test]
fn passes_do_what_the_library_does() {
    for channels in [1, 24, 130] {
        let x = tensor([2, 7, 5, channels + 3], 1, DType::F64).narrow(3, 2, channels);
        let lines = [tensor([channels], 2, DType::F64), tensor([channels], 3, DType::F64)];
        let along = |vector: &Tensor<1>| vector.clone().reshape([1, 1, 1, channels]);
        for act in [Act::Linear, Act::Relu, Act::Relu6, Act::Silu] {
            let expected = activate(x.clone() * along(&lines[0]) + along(&lines[1]), act);
            assert!(worst(line(x.clone(), Some(lines.clone()), act), expected) < 1e-14, "{act:?}");
            assert!(worst(line(x.clone(), None, act), activate(x.clone(), act)) < 1e-14, "{act:?}");
        }
        let mean = x.clone().reshape([2, 35, channels]).mean_dim(1).reshape([2, channels]);
        assert!(worst(mean_of_pixels(x.clone()), mean) < 1e-14);
        let other = tensor([2, 7, 5, 6], 4, DType::F64);
        let expected = Tensor::cat(vec![x.clone(), other.clone(), x.clone()], 3);
        assert_eq!(worst(join_channels(vec![x.clone(), other.clone(), x.clone()]), expected.clone()), 0.0);
        let mut growing = Growing::new(x.clone(), 2 * channels + 6);
        let begun = growing.images();
        growing.push(other);
        growing.push(x.clone());
        assert_eq!(worst(growing.images(), expected), 0.0);
        assert_eq!(worst(begun, x), 0.0, "images that somebody still holds do not change");
    }
    let x = Tensor::<4>::from_data(
        TensorData::new(vec![1.0, f64::NAN, 3.0, 2.0], [1, 2, 2, 1]),
        (&Device::flex(), DType::F64),
    );
    let plane = Plane { padding: [0; 4], ..Plane::square(2, 2) };
    assert!(
        read(pool2d(x.clone(), plane, Pool::Maximum))[0].is_nan(),
        "what is not a number must not vanish in a pool"
    );
    let packed = pack(tensor([1, 1, 1, 1], 1, DType::F64), [1, 1], Products::Whole);
    let after = After { bias: None, addend: None, act: Act::Relu };
    let plane = Plane::square(1, 1);
    assert!(read(conv2d_packed(x, Way::AsItIs, packed, 1, plane, after))[1].is_nan(), "nor in an activation");
}
