//! Making good what was found: a plan, and what is done by it.

mod apply;
mod copies;
mod plan;

pub use copies::Copies;
pub use plan::{Action, Plan, Step};
