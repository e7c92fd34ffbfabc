//! What the windowing kernel is given: pixels and small tables, gathered from a batch of slices on the host.

use std::collections::HashMap;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, FloatDType, Int, Shape, Tensor, TensorData};

use crate::layer::Transport;
use crate::window::{KernelError, Line, Padding, SliceView, StoredPixels, WindowPlan, check_all, whole_or};

/// Integers of a slice: place of the rectangle's first pixel, values from row to row, rows and columns of the rectangle,
/// whether columns and rows run backwards, whether values are signed, first and last padding value, and the first block of
/// columns and of rows in the tables.
pub(crate) const SLICE_FIELDS: usize = 11;
/// Numbers of a window in a slice: pivot, low, high, scale, offset ([`Line`]). A slice has these for each window, after the
/// value that replaces padding.
pub(crate) const LINE_FIELDS: usize = 5;

/// Integers of a block of neighboring output positions: first source position, number of positions, place of their weights.
pub(crate) const TABLE_FIELDS: usize = 3;

/// Sizes of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Slices.
    pub n: usize,
    /// Side of the output.
    pub side: usize,
    /// Windows.
    pub channels: usize,
    /// Whether two pixels share a 32-bit word, for devices without 16-bit integers.
    pub packed: bool,
}

fn output_shape(launch: &Launch) -> Shape {
    Shape::from(vec![launch.n, launch.side, launch.side, launch.channels])
}

/// Windowing on GPUs.
#[backend_extension(Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"))]
pub trait WindowOps: Backend {
    /// `pixels` of all slices one after the other; `slices`, `lines` and `tables` as above; `weights` holds for each source
    /// position of a block its weight in each of the block's output positions.
    #[fusion(dtype = (*dtype).into(), shape = output_shape(launch))]
    fn window_batch(
        pixels: IntTensor<Self>,
        slices: IntTensor<Self>,
        lines: FloatTensor<Self>,
        tables: IntTensor<Self>,
        weights: FloatTensor<Self>,
        launch: Launch,
        dtype: FloatDType,
    ) -> FloatTensor<Self>;
}

/// The tables of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tables {
    pixels: Vec<u16>,
    slices: Vec<i32>,
    lines: Vec<f32>,
    blocks: Vec<i32>,
    weights: Vec<f32>,
    /// First block, by source size.
    known: HashMap<usize, i32>,
}

impl Tables {
    fn of(plan: &WindowPlan, slices: &[SliceView<'_>]) -> Tables {
        let mut tables = Tables::default();
        for view in slices {
            tables.add(plan, view);
        }
        tables
    }

    fn add(&mut self, plan: &WindowPlan, view: &SliceView<'_>) {
        let rect = whole_or(view);
        let origin = self.pixels.len() + rect.top * view.columns + rect.left;
        let signed = match view.pixels {
            StoredPixels::I16(values) => {
                self.pixels.extend_from_slice(bytemuck::cast_slice(values));
                true
            }
            StoredPixels::U16(values) => {
                self.pixels.extend_from_slice(values);
                false
            }
        };
        let lines = Line::all(plan, view);
        let padding = Padding::of(view, &lines);
        let bounds = padding.map_or([1, 0], |padding| padding.bounds);
        let (across, down) = (self.table(plan, rect.columns), self.table(plan, rect.rows));
        self.slices.extend([
            origin as i32,
            view.columns as i32,
            rect.rows as i32,
            rect.columns as i32,
            i32::from(view.flip.horizontal),
            i32::from(view.flip.vertical),
            i32::from(signed),
            bounds[0],
            bounds[1],
            across,
            down,
        ]);
        self.lines.push(padding.map_or(0.0, |padding| padding.instead));
        for line in lines {
            self.lines.extend([line.pivot, line.low, line.high, line.scale, line.offset]);
        }
    }

    /// First block of the table from `source` samples to the output's side.
    fn table(&mut self, plan: &WindowPlan, source: usize) -> i32 {
        if let Some(known) = self.known.get(&source) {
            return *known;
        }
        let first = (self.blocks.len() / TABLE_FIELDS) as i32;
        for block in plan.taps(source).blocks() {
            let place = self.weights.len() as i32;
            self.blocks.extend([block.start as i32, block.weights.len() as i32, place]);
            self.weights.extend(block.weights.as_flattened());
        }
        self.known.insert(source, first);
        first
    }
}

/// A batch on the host, as a GPU takes it: pixels one after the other, and tables. Any thread can gather it; the one that
/// owns the device moves it there.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathered {
    tables: Tables,
    launch: Launch,
}

/// A batch on a GPU: pixels and tables, ready to be windowed.
#[derive(Clone, Debug)]
pub struct Uploaded {
    pixels: Tensor<1, Int>,
    slices: Tensor<1, Int>,
    lines: Tensor<1>,
    tables: Tensor<1, Int>,
    weights: Tensor<1>,
    launch: Launch,
}

impl Gathered {
    /// Copies what a launch needs of the slices. Either transport gives the same result, where the device has it.
    ///
    /// # Errors
    /// Numbers that make no sense, or more pixels than a launch can count.
    pub fn new(plan: &WindowPlan, slices: &[SliceView<'_>], transport: Transport) -> Result<Gathered, KernelError> {
        check_all(slices)?;
        let largest = i32::MAX as usize;
        let values: usize = slices.iter().map(|view| view.rows * view.columns).sum();
        // The third axis of a CUDA grid ends at 65,535.
        let n = slices.len();
        if n == 0 || n > 65_535 || values > largest || n * plan.values_per_slice() > largest {
            return Err(KernelError::Plan(format!("{n} slices of {values} pixels do not fit one launch")));
        }
        let packed = transport == Transport::Packed;
        let launch = Launch { n, side: plan.side(), channels: plan.channels(), packed };
        Ok(Gathered { tables: Tables::of(plan, slices), launch })
    }

    /// Moves the batch to a GPU.
    pub fn upload(self, device: &Device) -> Uploaded {
        let Gathered { tables: Tables { pixels, slices: rows, lines, blocks, weights, .. }, launch } = self;
        let integers = |values: Vec<i32>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), (device, DType::I32))
        };
        let floats = |values: Vec<f32>| {
            let shape = [values.len()];
            Tensor::<1>::from_data(TensorData::new(values, shape), (device, DType::F32))
        };
        Uploaded {
            pixels: if launch.packed { pack(pixels, device) } else { keep(pixels, device) },
            slices: integers(rows),
            lines: floats(lines),
            tables: integers(blocks),
            weights: floats(weights),
            launch,
        }
    }
}

impl Uploaded {
    /// Gathers a batch and moves it to a GPU.
    ///
    /// # Errors
    /// As [`Gathered::new`].
    pub fn new(
        plan: &WindowPlan,
        slices: &[SliceView<'_>],
        device: &Device,
        transport: Transport,
    ) -> Result<Uploaded, KernelError> {
        Ok(Gathered::new(plan, slices, transport)?.upload(device))
    }

    /// `[n, side, side, channels]` of type `dtype`, in one launch.
    pub fn window(&self, dtype: FloatDType) -> Tensor<4> {
        Tensor::from_dispatch(<Dispatch as WindowOps>::window_batch(
            self.pixels.clone().into_dispatch(),
            self.slices.clone().into_dispatch(),
            self.lines.clone().into_dispatch(),
            self.tables.clone().into_dispatch(),
            self.weights.clone().into_dispatch(),
            self.launch,
            dtype,
        ))
    }
}

/// Pixels as 16-bit integers; the kernel knows which are signed.
fn keep(pixels: Vec<u16>, device: &Device) -> Tensor<1, Int> {
    let shape = [pixels.len()];
    let bits: Vec<i16> = bytemuck::allocation::cast_vec(pixels);
    Tensor::from_data(TensorData::new(bits, shape), (device, DType::I16))
}

/// Two pixels in each 32-bit integer, the first in the lower half.
fn pack(mut pixels: Vec<u16>, device: &Device) -> Tensor<1, Int> {
    pixels.resize(pixels.len().next_multiple_of(2), 0);
    let pairs = pixels.as_chunks::<2>().0.iter();
    let words: Vec<u32> = pairs.map(|[low, high]| u32::from(*low) | u32::from(*high) << 16).collect();
    let shape = [words.len()];
    Tensor::from_data(TensorData::new(words, shape), (device, DType::U32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Ramp, Rect, Window};

    #[test]
    fn any_thread_gathers_the_same_and_tells_what_makes_no_sense() {
        let plan =
            WindowPlan::new(&[Window { level: 40.0, width: 80.0 }], Ramp::LinearExact, 8, &[0.5], &[0.25]).unwrap();
        let values: Vec<i16> = (0..30).map(|at| at * 7 - 90).collect();
        let whole =
            SliceView { pixels: StoredPixels::I16(&values), rows: 5, columns: 6, slope: 1.0, ..SliceView::default() };
        let part = SliceView { rect: Some(Rect { top: 1, left: 2, rows: 3, columns: 4 }), ..whole.clone() };
        let slices = [whole.clone(), part];
        let here = Gathered::new(&plan, &slices, Transport::Words).unwrap();
        let there = std::thread::scope(|scope| {
            scope.spawn(|| Gathered::new(&plan, &slices, Transport::Words).unwrap()).join().unwrap()
        });
        assert_eq!(here, there);
        assert_eq!((here.launch.n, here.tables.pixels.len(), here.tables.slices.len()), (2, 60, 2 * SLICE_FIELDS));
        let both = [values.clone(), values.clone()].concat();
        let stored: Vec<i16> = bytemuck::allocation::cast_vec(here.tables.pixels);
        assert_eq!(stored, both);
        let cut = SliceView { rows: 4, ..whole };
        assert!(matches!(Gathered::new(&plan, &[cut], Transport::Words), Err(KernelError::Slice { slice: 0, .. })));
        assert!(matches!(Gathered::new(&plan, &[], Transport::Packed), Err(KernelError::Plan(_))));
    }
}
