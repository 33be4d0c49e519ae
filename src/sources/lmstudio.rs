//! LM Studio's models: `<models>/<publisher>/<name>/<files>`.

use std::path::{Path, PathBuf};

use super::payload::{add_below, folders_in};
use super::{Source, Survey};

/// A `models` folder.
#[derive(Debug, Clone)]
pub struct LmStudio(PathBuf);

impl LmStudio {
    pub fn at(root: &Path) -> Self {
        Self(root.to_owned())
    }
}

impl Source for LmStudio {
    fn name(&self) -> &'static str {
        "lmstudio"
    }

    fn root(&self) -> &Path {
        &self.0
    }

    fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        if self.0.read_dir().is_err() {
            survey.unreadable = 1;
        }
        for model in folders_in(&self.0).iter().flat_map(|publisher| folders_in(publisher)) {
            let mut holds_weights = false;
            add_below(&model, &mut survey, |entry| {
                let path = entry.path();
                holds_weights |= path.extension().is_some_and(|end| end == "gguf" || end == "safetensors");
                true
            });
            survey.models += u64::from(holds_weights);
        }
        survey
    }
}
