//! How a model wants to be asked, where the tool that keeps it wrote that down: Ollama's system message,
//! parameters and first messages.

use serde_json::Value;

use super::parameters::Parameters;
use crate::commands::foreign;
use crate::commands::resolve::Resolved;
use crate::context::Context;
use crate::engine::probe::probe;
use crate::engine::request::Message;
use crate::error::Result;
use crate::ids::Host;
use crate::sources::Instructions;

/// What holds for a model unless a flag tells otherwise.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    pub parameters: Parameters,
    /// Tokens of context.
    pub context: Option<usize>,
    pub system: Option<String>,
    /// Turns that come before the user's first.
    pub turns: Vec<Message>,
}

/// Parameters of Ollama that change how it computes, not what; here the machine decides.
const MACHINE: [&str; 7] =
    ["num_batch", "num_gpu", "main_gpu", "use_mmap", "use_mlock", "num_thread", "num_keep"];

impl Manner {
    /// Reads it for a model of Ollama; others have none. What is not honoured is told.
    pub fn of(model: &Resolved, context: &Context) -> Result<Self> {
        let Some(name) = model.name.as_ref().filter(|name| name.host() == Host::Ollama) else {
            return Ok(Self::default());
        };
        // A model whose manifest Ollama has removed still runs.
        let Some(written) = foreign::instructions(name, context)? else { return Ok(Self::default()) };
        let (manner, unknown) = Self::read(&written);
        if !unknown.is_empty() {
            let list = unknown.join(", ");
            context.output.warn(format!("parameters of {name} in Ollama that have no effect here: {list}"));
        }
        if written.has_projector {
            context.output.note(format!("{name} can see images in Ollama; here only its text part runs"));
        }
        if written.has_template && !probe(&model.path)?.has_chat_template {
            context.output.warn(format!(
                "{name} has a chat template only in the language of Ollama, which mlx-cache does not speak: \
                 turns are joined by blank lines"
            ));
        }
        Ok(manner)
    }

    /// What is understood, and the names of the parameters that are not.
    fn read(written: &Instructions) -> (Self, Vec<String>) {
        let mut manner = Self {
            system: written.system.clone().filter(|system| !system.trim().is_empty()),
            turns: written.messages.iter().map(|(role, content)| Message::new(role, content)).collect(),
            ..Self::default()
        };
        let mut unknown = Vec::new();
        let is_mirostat = written.parameters.get("mirostat").and_then(Value::as_u64) == Some(2);
        if let Some(tau) = written.parameters.get("mirostat_tau").filter(|_| is_mirostat)
            && manner.parameters.set("mirostat_tau", &tau.to_string()).is_err()
        {
            unknown.push("mirostat_tau".to_owned());
        }
        for (name, value) in written.parameters.iter().filter(|(name, _)| *name != "mirostat_tau") {
            if !MACHINE.contains(&name.as_str()) && manner.set(name, value).is_none() {
                unknown.push(name.clone());
            }
        }
        (manner, unknown)
    }

    /// Takes one parameter over; `None` if it has no meaning here, or a value out of its range.
    fn set(&mut self, name: &str, value: &Value) -> Option<()> {
        match (name, value) {
            ("stop", Value::Array(texts)) => {
                let texts = texts.iter().map(|text| text.as_str().filter(|text| !text.is_empty()));
                self.parameters.stop = texts.map(|text| text.map(str::to_owned)).collect::<Option<_>>()?;
                Some(())
            }
            ("num_ctx", Value::Number(number)) => {
                self.context = Some(number.as_u64().filter(|&tokens| tokens > 0)? as usize);
                Some(())
            }
            // Below zero: until the model ends, or the context is full.
            ("num_predict", Value::Number(number)) if number.as_i64().is_some_and(|most| most < 0) => {
                Some(())
            }
            ("repeat_last_n", Value::Number(number)) if number.as_i64() == Some(-1) => {
                self.parameters.repetition_window = usize::MAX;
                Some(())
            }
            ("mirostat", Value::Number(number)) => match number.as_u64()? {
                // The target counts only with the second version, and is 5 there unless told.
                0 => Some(()),
                2 if self.parameters.mirostat_tau > 0.0 => Some(()),
                2 => self.parameters.set("mirostat_tau", "5").ok(),
                _ => None,
            },
            ("stop", Value::String(text)) => self.parameters.set(name, text).ok(),
            (
                "temperature" | "top_k" | "top_p" | "min_p" | "typical_p" | "repeat_penalty"
                | "presence_penalty" | "frequency_penalty" | "repeat_last_n" | "mirostat_eta" | "seed"
                | "num_predict",
                Value::Number(number),
            ) => self.parameters.set(name, &number.to_string()).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: Value) -> (Manner, Vec<String>) {
        let Value::Object(parameters) = parameters else { panic!("an object") };
        Manner::read(&Instructions { parameters, ..Instructions::default() })
    }

    #[test]
    fn what_ollama_wrote_is_taken_over() {
        let (manner, unknown) = read(serde_json::json!({
            "stop": ["<|im_start|>", "<|im_end|>"], "temperature": 0.25, "top_k": 7, "top_p": 0.5,
            "min_p": 0.1, "repeat_penalty": 1.25, "repeat_last_n": -1, "seed": 3, "num_predict": 9,
            "num_ctx": 2048, "num_gpu": 99}));
        assert!(unknown.is_empty(), "{unknown:?}");
        assert_eq!(manner.context, Some(2048));
        let expected = Parameters {
            temperature: 0.25,
            top_k: 7,
            top_p: 0.5,
            min_p: 0.1,
            repetition_penalty: 1.25,
            repetition_window: usize::MAX,
            seed: Some(3),
            max_tokens: Some(9),
            stop: vec!["<|im_start|>".to_owned(), "<|im_end|>".to_owned()],
            ..Parameters::default()
        };
        assert_eq!(manner.parameters, expected);
    }

    #[test]
    fn mirostat_is_on_only_in_its_second_version() {
        for (parameters, tau) in [
            (serde_json::json!({"mirostat": 2}), 5.0),
            (serde_json::json!({"mirostat": 2, "mirostat_tau": 3.5}), 3.5),
            (serde_json::json!({"mirostat_tau": 3.5}), 0.0),
            (serde_json::json!({"mirostat_tau": 3.5, "mirostat": 0}), 0.0),
        ] {
            let (manner, unknown) = read(parameters.clone());
            assert!(unknown.is_empty(), "{unknown:?}");
            assert!((manner.parameters.mirostat_tau - tau).abs() < 1e-9, "{parameters}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told_and_changes_nothing() {
        let (manner, unknown) = read(serde_json::json!({
            "mirostat": 1, "temperature": -1, "top_k": "many", "stop": [""], "num_ctx": 0, "num_predict": -1}));
        assert_eq!(unknown, ["mirostat", "temperature", "top_k", "stop", "num_ctx"]);
        assert_eq!((manner.parameters, manner.context), (Parameters::default(), None));
    }
}
