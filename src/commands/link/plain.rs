//! Folders of plain files: LM Studio's, and any that the user names.

use std::path::{Path, PathBuf};

use super::Model;
use super::plan::{Plan, What};
use crate::error::{Code, Error, Result};
use crate::ids::{Host, ModelName};

/// `<models>/<publisher>/<name>/<files>`: LM Studio lists what lies two folders deep.
pub(super) fn lm_studio(model: &Model, models: &Path) -> Result<Plan> {
    if !models.is_dir() {
        let message = format!("LM Studio has no folder of models at {}", models.display());
        return Err(Error::new(Code::FileNotFound, message)
            .detail("path", models.display().to_string())
            .hint("start LM Studio once, or name the folder itself with --to DIR"));
    }
    let name = &model.snapshot.name;
    let publisher = name.org().rsplit(':').next().unwrap_or_default();
    let shown = ModelName::new(Host::LmStudio, publisher, &folder_name(name))?;
    let plan = Plan::new("lmstudio", models, shown.to_string())?;
    Ok(filled(plan, model, &Path::new(shown.org()).join(shown.name())))
}

/// `DIR/<name>/<files>`, or `DIR/<name>/<file>.gguf`.
pub(super) fn folder(model: &Model, folder: &Path) -> Result<Plan> {
    if !folder.is_dir() {
        let message = format!("there is no folder {}", folder.display());
        return Err(Error::new(Code::FileNotFound, message)
            .detail("path", folder.display().to_string())
            .hint("--to takes hf, lmstudio, ollama, or a folder that exists"));
    }
    let below = PathBuf::from(folder_name(&model.snapshot.name));
    let plan = Plan::new("folder", folder, folder.join(&below).display().to_string())?;
    Ok(filled(plan, model, &below))
}

fn filled(mut plan: Plan, model: &Model, below: &Path) -> Plan {
    for file in &model.files {
        plan.add(below.join(&file.path), What::Content { digest: file.digest, bytes: file.bytes });
    }
    plan
}

/// The last part of a name; Ollama's tag stands behind a colon, which no folder should have.
fn folder_name(name: &ModelName) -> String {
    name.name().replace(':', "-")
}
