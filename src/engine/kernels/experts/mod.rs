//! A mixture of experts (Shazeer et al., arXiv:1701.06538): each token goes to a few of many feed-forward
//! blocks, whose results are added up by weight.

mod products;
mod routing;

use std::ffi::CStr;
use std::ops::Range;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::check;
use super::inputs::Inputs;
use super::isa::Isa;
use super::packed::{BLOCK, Layout, PackedMatrix, View};
use super::pool;
use super::scratch::Scratch;
use crate::engine::config::style::{Gating, Routing};
use crate::engine::ffi::{Buffers, Kernel, Operand, OutputSpec, SharedSlice, record};
use products::{Factors, Inside, Outside};
use routing::Visit;

/// Blocks of rows that a worker multiplies at once.
const TOGETHER: usize = 4;

/// How experts are chosen, and what each does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Experts {
    pub routing: Routing,
    pub gating: Gating,
    /// I, the inner size of one.
    pub intermediate_size: usize,
}

/// What experts have beside matrices.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExpertVectors<'a> {
    /// Added to the scores to choose by, `[count]`.
    pub correction: Option<&'a Array>,
    /// Multiply the weights, `[count]`.
    pub factors: Option<&'a Array>,
    /// Those of all gates, ups and downs, one after the other.
    pub biases: Option<&'a Array>,
}

/// `Σ weight · down(act(gate(x)) * up(x))` over each token's experts, `[L, H]` from `x` `[L, H]`.
///
/// `scores` `[L, count]` are what the weights come from. Gate and up are `[count · I, H]`, down is
/// `[count · H, I]`: the matrices of all experts one below the other, packed by
/// [`PackedMatrix::pack_parts`]. Where there is no gate, up stands in its place.
///
/// # Errors
/// Shapes or types that do not fit each other.
pub fn experts<X: Operand>(
    x: &X,
    scores: &X,
    matrices: [&PackedMatrix; 3],
    vectors: &ExpertVectors<'_>,
    kind: &Experts,
) -> Result<X, Exception> {
    let ExpertVectors { correction, factors, biases } = *vectors;
    let (tokens, hidden) = check::matrix(x, "the input of experts")?;
    let Routing { count, used, groups, corrected, .. } = kind.routing;
    check::shape(scores, "the scores of experts", &[tokens, count])?;
    let inner = kind.intermediate_size;
    let each = [inner, inner, hidden];
    let grouped = groups.is_none_or(|groups| {
        groups.count > 0 && count.is_multiple_of(groups.count) && (1..=groups.count).contains(&groups.used)
    });
    let rows = |index: usize| {
        let one = if count > 1 { each[index].next_multiple_of(BLOCK) } else { each[index] };
        count.checked_mul(one)
    };
    let fits = used > 0
        && used <= count
        && grouped
        && corrected == correction.is_some()
        && inner > 0
        && matrices.iter().zip([hidden, hidden, inner]).all(|(it, columns)| it.columns() == columns)
        && (0..3).all(|index| rows(index) == Some(matrices[index].rows()));
    if !fits {
        return Err(Exception::custom(format!("{count} experts of shapes that do not fit each other")));
    }
    let mut inputs = vec![x.input(), scores.input()];
    inputs.extend(matrices.iter().map(|it| it.input()));
    if let Some(biases) = biases {
        check::shape(biases, "the biases of experts", &[count * each.iter().sum::<usize>()])?;
        inputs.push(biases.input());
    }
    if let Some(correction) = correction {
        check::shape(correction, "the correction of experts", &[count])?;
        inputs.push(correction.input());
    }
    if let Some(factors) = factors {
        check::shape(factors, "the factors of experts", &[count])?;
        inputs.push(factors.input());
    }
    let kernel = Mixture {
        isa: Isa::current(),
        tokens,
        hidden,
        layouts: matrices.map(PackedMatrix::layout),
        biased: biases.is_some(),
        has_factors: factors.is_some(),
        kind: *kind,
    };
    let shape = [check::dimension(tokens)?, check::dimension(hidden)?];
    check::single(record(kernel, &inputs, &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])?)
}

#[derive(Clone, Copy)]
struct Mixture {
    isa: Isa,
    tokens: usize,
    hidden: usize,
    /// Of gate, up and down.
    layouts: [Layout; 3],
    /// Whether they have biases.
    biased: bool,
    /// Whether each expert has a factor.
    has_factors: bool,
    kind: Experts,
}

impl Kernel for Mixture {
    const NAME: &'static CStr = c"Experts";

    fn run(&self, buffers: &Buffers<'_>) {
        let x = buffers.input::<f32>(0);
        let mut take = buffers.optional(5);
        let mut biases = take(self.biased);
        let correction = take(self.kind.routing.corrected);
        let each = take(self.has_factors);
        let mut visits = routing::visits(&self.kind.routing, buffers.input::<f32>(1), correction);
        if let Some(factors) = each {
            for visit in &mut visits {
                visit.weight *= factors[visit.expert];
            }
        }
        let factors: [Factors<'_>; 3] = std::array::from_fn(|i| {
            let rows = [self.inner(), self.inner(), self.hidden][i];
            let bias = biases.map(|all| {
                let (own, rest) = all.split_at(self.kind.routing.count * rows);
                biases = Some(rest);
                own
            });
            Factors { view: View::new(self.layouts[i], buffers.input::<u8>(2 + i)), bias, rows }
        });
        let runs = runs(&visits);

        let mut gathered = Scratch::new(visits.len() * self.hidden);
        for (visit, row) in visits.iter().zip(gathered.chunks_exact_mut(self.hidden)) {
            row.copy_from_slice(&x[visit.token * self.hidden..][..self.hidden]);
        }
        let mut inner = Scratch::new(visits.len() * self.inner());
        {
            let [gate, up, _] = &factors;
            let layouts = [gate, up].into_iter().map(|it| it.view.layout);
            let inputs = Inputs::new(self.isa, layouts, &gathered);
            let to = SharedSlice::new(&mut inner);
            let inside =
                Inside { isa: self.isa, gating: self.kind.gating, gate, up, x: &gathered, inputs, to };
            let blocks = self.inner().div_ceil(BLOCK);
            let parts = blocks.div_ceil(TOGETHER);
            pool::run(runs.len() * parts, &|chunk| {
                let run = &runs[chunk / parts];
                let first = chunk % parts * TOGETHER;
                inside.compute(visits[run.start].expert, run, first..blocks.min(first + TOGETHER));
            });
        }
        let [.., down] = &factors;
        let inputs = Inputs::new(self.isa, std::iter::once(down.view.layout), &inner);
        let out = buffers.output::<f32>(0);
        let outside = Outside { isa: self.isa, down, x: &inner, inputs, out };
        // Two blocks of columns of the result are one worker's, whatever the experts that add to them.
        let blocks = self.hidden.div_ceil(BLOCK);
        pool::run(blocks.div_ceil(2), &|pair| {
            let pair = 2 * pair..blocks.min(2 * pair + 2);
            let (first, last) = (pair.start * BLOCK, self.hidden.min(pair.end * BLOCK));
            for token in 0..self.tokens {
                // SAFETY: these columns are this worker's.
                unsafe { out.slice(token * self.hidden + first, last - first) }.fill(0.0);
            }
            for run in &runs {
                outside.add(&visits, run, pair.clone());
            }
        });
    }
}

impl Mixture {
    fn inner(&self) -> usize {
        self.kind.intermediate_size
    }
}

/// Visits of one expert, which follow each other.
fn runs(visits: &[Visit]) -> Vec<Range<usize>> {
    let mut first = 0;
    let runs = visits.chunk_by(|a, b| a.expert == b.expert).map(|run| {
        let all = first..first + run.len();
        first = all.end;
        all
    });
    runs.collect()
}
