//! What the ways to compute a projection share: its operands, and which rows go where.

use std::ops::Deref;

use super::{Finish, MAX_MATRICES, Project};
use crate::engine::ffi::{Buffers, SharedSlice};
use crate::engine::kernels::isa::Isa;
use crate::engine::kernels::lanes::{LANES, Lanes, activate, load_part};
use crate::engine::kernels::norm::{NormShape, Normalise, by_tokens};
use crate::engine::kernels::packed::{BLOCK, View};
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
    norm: Option<NormArrays<'a>>,
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    factor: f32,
    y: SharedSlice<'a, f32>,
}

/// A norm's weight and bias.
type NormArrays<'a> = (NormShape, &'a [f32], Option<&'a [f32]>);

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
        let mut take = buffers.optional(1 + kernel.count);
        let norm = kernel.norm.and_then(|shape| {
            let weight = take(true)?;
            Some((shape, weight, take(shape.has_bias)))
        });
        Self {
            isa: kernel.isa,
            tokens: kernel.tokens,
            columns: kernel.columns,
            finish: kernel.finish,
            width: kernel.width,
            views,
            count: kernel.count,
            x: buffers.input(0),
            norm,
            factor: kernel.factor,
            bias: take(kernel.has_bias),
            residual: take(kernel.finish == Finish::Add),
            y: buffers.output(0),
        }
    }

    pub(super) fn views(&self) -> &[View<'a>] {
        &self.views[..self.count]
    }

    /// How many blocks make results: of both matrices of a gate, the first one's.
    pub(super) fn blocks(&self) -> usize {
        let views = if self.finish.is_gate() { &self.views[..1] } else { self.views() };
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
        let Some((shape, weight, bias)) = self.norm else {
            return Input::Given(self.x);
        };
        let mut normalised = Scratch::new(self.tokens * self.columns);
        let all = SharedSlice::new(&mut normalised);
        by_tokens(self.tokens, |first, count| {
            let (at, length) = (first * self.columns, count * self.columns);
            let x = &self.x[at..][..length];
            // SAFETY: each row is one worker's; the level was detected.
            unsafe { self.isa.run(Normalise { x, weight, bias, shape, to: all.slice(at, length) }) };
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
        let column = if self.finish.is_gate() { part.block * BLOCK } else { part.row };
        let at = token * self.width + column;
        // SAFETY: the caller's, and slices are checked for their length.
        unsafe {
            match self.finish {
                Finish::Store(Some(activation)) => result = activate(activation, result),
                Finish::Store(None) => result = result.mul(V::splat(self.factor)),
                Finish::Gate(activation) => {
                    result = activate(activation, result).mul(self.with_bias(self.second(part), second));
                }
                Finish::Add => {
                    if let Some(residual) = self.residual {
                        let residual = load_part(&residual[at..][..part.rows]);
                        result = result.mul_add(V::splat(self.factor), residual);
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
