//! The decode loop: one token after the other.

use mlx_rs::ops::indexing::argmax_axis;
use mlx_rs::{Array, Dtype, transforms};

use super::answer::{Answer, Decoded};
use super::{Channel, Generator};
use crate::engine::ffi::check_results;
#[cfg(target_os = "linux")]
use crate::engine::kernels;
use crate::engine::layers::Backend;
use crate::engine::models::Logits;
use crate::error::{Code, Error, Result};

/// The outcome of a step that may still be computing.
pub enum Pending {
    /// The next token, chosen on the device: `[1]` int32. With the logits it was chosen from.
    Token(Array, Array),
    /// Logits `[1, vocabulary]` from which the host chooses.
    Logits(Array),
}

impl Pending {
    /// Waits until it is computed.
    pub(in crate::engine) fn wait(&self) -> Result<()> {
        match self {
            Self::Token(token, _) => item(token).map(|_| ()),
            Self::Logits(logits) => Ok(logits.eval()?),
        }
    }

    /// `[1, vocabulary]`.
    pub(super) fn logits(&self) -> &Array {
        match self {
            Self::Token(_, logits) | Self::Logits(logits) => logits,
        }
    }
}

impl Generator {
    /// Starts computing what follows `tokens`.
    pub(in crate::engine) fn step(&mut self, tokens: &Array, on_device: bool) -> Result<Pending> {
        let logits = self.model.logits(tokens, &mut self.cache, Logits::Last)?;
        self.pending(logits, on_device)
    }

    /// Starts computing the choice from logits `[1, vocabulary]`, on the device or for the host.
    pub(super) fn pending(&self, logits: Array, on_device: bool) -> Result<Pending> {
        if on_device {
            let token = most_likely(&logits, self.model.cache_shape().backend)?;
            transforms::async_eval([&token])?;
            Ok(Pending::Token(token, logits))
        } else {
            let logits = logits.as_dtype(Dtype::Float32)?;
            transforms::async_eval([&logits])?;
            Ok(Pending::Logits(logits))
        }
    }

    /// Generates until the answer ends. While the host handles one token, the device computes the next.
    pub(super) fn decode(
        &mut self,
        first: Pending,
        mut answer: Answer,
        channel: &mut Channel,
    ) -> Result<Decoded> {
        let on_device = answer.is_on_device();
        self.ahead = Some(first);
        while let Some(now) = self.ahead.take() {
            let coming = match now {
                Pending::Token(token, _) => {
                    let more = answer.has_room();
                    if more {
                        self.ahead = Some(self.step(&token, on_device)?);
                    }
                    let id = item(&token)?;
                    if more {
                        self.held.push(id);
                    }
                    vec![id]
                }
                Pending::Logits(logits) => {
                    let coming = answer.coming(|| floats(&logits))?;
                    if answer.goes_on_after(&coming) {
                        self.ahead = Some(self.step(&ids(&coming), on_device)?);
                        self.held.extend_from_slice(&coming);
                    }
                    coming
                }
            };
            if !answer.take_all(&coming, channel)? {
                break;
            }
        }
        answer.finish(channel)
    }
}

/// The values of computed logits.
pub(super) fn floats(logits: &Array) -> Result<Vec<f32>> {
    logits.eval()?;
    check_results()?;
    let values = logits.try_as_slice::<f32>();
    Ok(values.map_err(|error| Error::internal(format!("logits: {error}")))?.to_vec())
}

/// The index of the largest of logits `[1, vocabulary]`, int32 `[1]`, chosen on the device.
pub(super) fn most_likely(logits: &Array, backend: Backend) -> Result<Array> {
    match backend {
        #[cfg(target_os = "linux")]
        Backend::Kernels => Ok(kernels::argmax(logits)?),
        _ => Ok(argmax_axis(logits, -1, false)?.as_dtype(Dtype::Int32)?),
    }
}

/// The token that a step has chosen, once it is computed.
pub(in crate::engine) fn item(token: &Array) -> Result<u32> {
    token.eval()?;
    let id = token.try_item_exact::<i32>().map_err(|error| Error::internal(format!("token: {error}")))?;
    check_results()?;
    u32::try_from(id).map_err(|_| {
        Error::new(Code::IntegrityFailed, "the model's logits are not numbers")
            .hint("the weights are damaged or not supported: fetch the model again")
    })
}

/// Token ids as the model takes them.
pub(super) fn ids(tokens: &[u32]) -> Array {
    let tokens: Vec<i32> = tokens.iter().map(|&token| token.cast_signed()).collect();
    Array::from_slice(&tokens, &[tokens.len() as i32])
}
