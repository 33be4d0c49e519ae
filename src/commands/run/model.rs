//! Which model runs when none is named.

use crate::commands::resolve::{Resolved, resolve};
use crate::context::Context;
use crate::error::{Code, Error, Result};

pub fn choose(argument: Option<&str>, _alone: bool, context: &Context) -> Result<Resolved> {
    match argument {
        Some(reference) => resolve(reference, context),
        None => Err(Error::new(Code::ModelNotFound, "no model")),
    }
}
