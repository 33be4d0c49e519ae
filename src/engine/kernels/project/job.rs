//! What the ways to compute a projection share: its operands, and which rows go where.

use std::ops::Deref;

use super::{Finish, MAX_MATRICES, Project};
use crate::engine::ffi::{Buffers, SharedSlice};
use crate::engine::kernels::activation;
use crate::engine::kernels::isa::{Isa, Task};
use crate::engine::kernels::lanes::{LANES, Lanes};
use crate::engine::kernels::packed::{BLOCK, View};
use crate::engine::kernels::pool;
use crate::engine::kernels::scratch::Scratch;

pub(super) struct Job<'a> {
    pub(super) isa: Isa,
    pub(super) tokens: usize,
    pub(super) columns: usize,
    pub(super) finish: Finish,
    width: usize,
    views: [View<'a>; MAX_MATRICES],
    count: usize,
    x: &'a [f32],
    norm: Option<(&'a [f32], f32)>,
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    y: SharedSlice<'a, f32>,
}

/// A block of a matrix and where its products belong.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) matrix: usize,
    pub(super) block: usize,
    /// Rows that are not padding.
    rows: usize,
    /// The first row among the rows of all matrices.
    row: usize,
}

/// The rows of `x` that are multiplied.
pub(super) enum Input<'a> {
    Given(&'a [f32]),
    Normalised(Scratch),
}

impl Deref for Input<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Given(x) => x,
            Self::Normalised(x) => x,
        }
    }
}

impl<'a> Job<'a> {
    pub(super) fn new(kernel: &Project, buffers: &Buffers<'a>) -> Self {
        let views = std::array::from_fn(|i| {
            let i = i.min(kernel.count - 1);
            View::new(kernel.layouts[i], buffers.input::<u8>(1 + i))
        });
        let mut next = 1 + kernel.count;
        let mut take = |there: bool| {
            let index = next;
            next += usize::from(there);
            there.then(|| buffers.input::<f32>(index))
        };
        Self {
            isa: kernel.isa,
            tokens: kernel.tokens,
            columns: kernel.columns,
            finish: kernel.finish,
            width: kernel.width,
            views,
            count: kernel.count,
            x: buffers.input(0),
            norm: take(kernel.epsilon.is_some()).zip(kernel.epsilon),
            bias: take(kernel.has_bias),
            residual: take(kernel.finish == Finish::Add),
            y: buffers.output(0),
        }
    }

    pub(super) fn views(&self) -> &[View<'a>] {
        &self.views[..self.count]
    }

    /// Whether two matrices make one result.
    pub(super) fn is_gate(&self) -> bool {
        matches!(self.finish, Finish::Gate(_))
    }

    /// How many blocks make results: of both matrices of a gate, the first one's.
    pub(super) fn blocks(&self) -> usize {
        let views = if self.is_gate() { &self.views[..1] } else { self.views() };
        views.iter().map(|view| view.layout.blocks()).sum()
    }

    /// Block `index` of all matrices, one after the other.
    pub(super) fn part(&self, index: usize) -> Part {
        let (mut first, mut row) = (0, 0);
        for (matrix, view) in self.views().iter().enumerate() {
            let blocks = view.layout.blocks();
            if index < first + blocks {
                return part_of(view, matrix, index - first, row);
            }
            first += blocks;
            row += view.layout.rows;
        }
        unreachable!("a block beyond the last one");
    }

    /// The same block of a gate's second matrix.
    pub(super) fn second(&self, part: Part) -> Part {
        part_of(&self.views[1], 1, part.block, self.width)
    }

    pub(super) fn view(&self, part: Part) -> &View<'a> {
        &self.views[part.matrix]
    }

    /// `x`, normalised if that is wanted.
    pub(super) fn input(&self) -> Input<'a> {
        let Some((weight, epsilon)) = self.norm else {
            return Input::Given(self.x);
        };
        let mut normalised = Scratch::new(self.tokens * self.columns);
        let all = SharedSlice::new(&mut normalised);
        // One token, as in generation, is not worth another thread.
        let together = if self.tokens == 1 { 1 } else { 8 };
        pool::run(self.tokens.div_ceil(together), &|chunk| {
            let first = chunk * together;
            let count = together.min(self.tokens - first) * self.columns;
            let x = &self.x[first * self.columns..][..count];
            // SAFETY: each row is one worker's; the level was detected.
            unsafe {
                self.isa.run(Normalise { x, weight, epsilon, to: all.slice(first * self.columns, count) });
            };
        });
        Input::Normalised(normalised)
    }

    /// Bias, residual and gate over the products of one token, then the result.
    ///
    /// # Safety
    /// `V`'s instructions exist, and no other worker has this part of this token.
    #[inline(always)]
    pub(super) unsafe fn finish<V: Lanes>(&self, token: usize, part: Part, products: V, second: V) {
        let mut result = self.with_bias(part, products);
        let column = if self.is_gate() { part.block * BLOCK } else { part.row };
        let at = token * self.width + column;
        // SAFETY: the caller's, and slices are checked for their length.
        unsafe {
            match self.finish {
                Finish::Store => {}
                Finish::Activate(activation) => result = activation::apply(activation, result),
                Finish::Gate(activation) => {
                    result =
                        activation::apply(activation, result).mul(self.with_bias(self.second(part), second));
                }
                Finish::Add => {
                    if let Some(residual) = self.residual {
                        result = result.add(load_part(&residual[at..][..part.rows]));
                    }
                }
            }
            let to = self.y.range(at, part.rows);
            if part.rows == LANES { result.store(to) } else { result.store_part(to, part.rows) }
        }
    }

    #[inline(always)]
    fn with_bias<V: Lanes>(&self, part: Part, products: V) -> V {
        match self.bias {
            // SAFETY: only called by `finish`.
            Some(bias) => unsafe { products.add(load_part(&bias[part.row..][..part.rows])) },
            None => products,
        }
    }
}

fn part_of(view: &View<'_>, matrix: usize, block: usize, first_row: usize) -> Part {
    let rows = BLOCK.min(view.layout.rows - block * BLOCK);
    Part { matrix, block, rows, row: first_row + block * BLOCK }
}

/// At most 16 floats.
#[inline(always)]
unsafe fn load_part<V: Lanes>(from: &[f32]) -> V {
    // SAFETY: the caller's; a slice is as long as it says.
    unsafe {
        if from.len() == LANES { V::load(from.as_ptr()) } else { V::load_part(from.as_ptr(), from.len()) }
    }
}

/// `x / sqrt(mean(x²) + epsilon) * weight`, row by row.
struct Normalise<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    to: &'a mut [f32],
}

impl Task for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let columns = self.weight.len();
        for (x, to) in self.x.chunks_exact(columns).zip(self.to.chunks_exact_mut(columns)) {
            // SAFETY: the caller's; all three rows have `columns` floats.
            unsafe {
                let (from, weight, to) = (x.as_ptr(), self.weight.as_ptr(), to.as_mut_ptr());
                let mut squares = [V::zero(); 2];
                let whole = columns / LANES * LANES;
                for at in (0..whole).step_by(LANES) {
                    let value = V::load(from.add(at));
                    squares[at / LANES % 2] = value.mul_add(value, squares[at / LANES % 2]);
                }
                let rest = columns - whole;
                if rest > 0 {
                    let value = V::load_part(from.add(whole), rest);
                    squares[0] = value.mul_add(value, squares[0]);
                }
                let mean = squares[0].add(squares[1]).sum() / columns as f32;
                let factor = V::splat(1.0 / (mean + self.epsilon).sqrt());
                for at in (0..whole).step_by(LANES) {
                    let value = V::load(from.add(at)).mul(factor).mul(V::load(weight.add(at)));
                    value.store(to.add(at));
                }
                if rest > 0 {
                    let value = V::load_part(from.add(whole), rest).mul(factor);
                    value.mul(V::load_part(weight.add(whole), rest)).store_part(to.add(whole), rest);
                }
            }
        }
    }
}
