//! Memory of large results, used again and again.
//!
//! A network's activations are tens of megabytes each. Asking the system for them anew costs a page fault for every four
//! kilobytes, a quarter of all time on the networks measured (BENCHMARKS.md), so the memory of a dropped tensor is kept for
//! the next one of about its size. All of it together never exceeds one and a half times what was in use at once.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Bytes, Shape, TensorData};
use burn_flex::FlexTensor;
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty};

use super::Real;

/// A cache line, so that every number type is aligned.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Smaller results are left to the allocator.
const LEAST: usize = 32 * 1024 / size_of::<Line>();

/// Memory that nobody uses now, and how much is used.
struct Pool {
    free: Vec<Vec<Line>>,
    free_lines: usize,
    used_lines: usize,
    /// The most that was in use at once.
    peak_lines: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), free_lines: 0, used_lines: 0, peak_lines: 0 });

fn take(lines: usize) -> Vec<Line> {
    if lines < LEAST {
        return bytemuck::allocation::zeroed_vec(lines);
    }
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |memory: &Vec<Line>| (lines..=lines * 2).contains(&memory.len());
    let best = (0..pool.free.len()).filter(|at| fits(&pool.free[*at])).min_by_key(|at| pool.free[*at].len());
    let found = best.map(|at| pool.free.swap_remove(at));
    if let Some(memory) = &found {
        pool.free_lines -= memory.len();
    }
    pool.used_lines += found.as_ref().map_or(lines, Vec::len);
    pool.peak_lines = pool.peak_lines.max(pool.used_lines);
    drop(pool);
    found.unwrap_or_else(|| bytemuck::allocation::zeroed_vec(lines))
}

fn give_back(memory: Vec<Line>) {
    if memory.len() < LEAST {
        return;
    }
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    pool.used_lines -= memory.len();
    pool.free_lines += memory.len();
    pool.free.push(memory);
    // The oldest go first: sizes that are no longer asked for.
    let mut dropped = Vec::new();
    while pool.free_lines + pool.used_lines > pool.peak_lines + pool.peak_lines / 2 && !pool.free.is_empty() {
        let oldest = pool.free.remove(0);
        pool.free_lines -= oldest.len();
        dropped.push(oldest);
    }
    drop(pool);
}

/// Gives all memory that is kept for later back to the system.
pub fn release_memory() {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = std::mem::take(&mut pool.free);
    pool.free_lines = 0;
    pool.peak_lines = pool.used_lines;
    drop(pool);
    drop(kept);
}

thread_local! {
    /// A thread's own memory for what it needs inside one piece of work.
    static SCRATCH: std::cell::Cell<Vec<Line>> = const { std::cell::Cell::new(Vec::new()) };
}

/// Runs `work` with `len` values of any content that stay with this thread. It keeps as much as it ever needed.
pub(crate) fn with_scratch<T: Real, R>(len: usize, work: impl FnOnce(&mut [T]) -> R) -> R {
    // Taken out meanwhile, so that work inside work gets memory of its own.
    let mut memory = SCRATCH.take();
    let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if memory.len() < lines {
        memory = bytemuck::allocation::zeroed_vec(lines);
    }
    let result = work(&mut bytemuck::cast_slice_mut(&mut memory)[..len]);
    SCRATCH.set(memory);
    result
}

/// A result in the making. New ones hold whatever was there before: all of it must be written.
pub(crate) struct Buffer<T> {
    memory: Memory,
    len: usize,
    kind: PhantomData<T>,
}

impl<T: Real> Buffer<T> {
    /// For `len` values of any content.
    pub fn new(len: usize) -> Buffer<T> {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        Buffer { memory: Memory(take(lines)), len, kind: PhantomData }
    }

    /// For `len` zeros.
    pub fn zeros(len: usize) -> Buffer<T> {
        let mut buffer = Buffer::new(len);
        buffer.fill(T::ZERO);
        buffer
    }

    /// As a tensor, without copying.
    pub fn into_tensor(self, shape: impl Into<Shape>) -> FlexTensor {
        FlexTensor::from_data(self.into_data(shape))
    }

    /// As a tensor's data, without copying.
    pub fn into_data(self, shape: impl Into<Shape>) -> TensorData {
        let bytes = self.len * size_of::<T>();
        // SAFETY: all of the memory is initialized, and it holds at least `bytes` bytes.
        let bytes = unsafe { Bytes::from_controller(Box::new(self.memory), bytes) };
        TensorData::from_bytes(bytes, shape, T::dtype())
    }
}

impl<T: Real> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.memory.0)[..self.len]
    }
}

impl<T: Real> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.memory.0)[..self.len]
    }
}

/// Memory that goes back to the pool.
struct Memory(Vec<Line>);

impl Drop for Memory {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.0));
    }
}

impl AllocationController for Memory {
    fn alloc_align(&self) -> usize {
        align_of::<Line>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        // SAFETY: MaybeUninit<u8> has the layout of u8; the caller promises to write only initialized bytes.
        Ok(unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.0);
        // SAFETY: MaybeUninit<u8> has the layout of u8, and what is behind the shared reference is not changed.
        Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_alive_tensors_keep_theirs() {
        let len = LEAST * 16 + 3;
        let first = Buffer::<f32>::zeros(len);
        let place = first.as_ptr();
        let tensor = first.into_tensor([len]);
        let mut second = Buffer::<f32>::new(len);
        second.fill(1.0);
        assert!(tensor.storage::<f32>().iter().all(|value| *value == 0.0), "a living tensor was overwritten");
        let copy = tensor.clone();
        drop(tensor);
        assert!(Buffer::<f32>::new(len).as_ptr() != place, "memory of a living copy was given away");
        drop(copy);
        let again: Vec<Buffer<f32>> = (0..3).map(|_| Buffer::new(len)).collect();
        assert!(again.iter().any(|buffer| buffer.as_ptr() == place), "memory was not used again");
        assert_eq!(again[0].len(), len);
        assert_eq!(Buffer::<f64>::zeros(5).into_tensor([5]).storage::<f64>(), [0.0; 5]);
    }
}
