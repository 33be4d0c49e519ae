//! Which files of a repository are fetched.

use std::collections::BTreeMap;

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::request::Choice;
use crate::error::{Code, Error, Result};
use crate::hub::RemoteFile;
use crate::ids::{FileChoice, ModelName, SnapshotPath};

/// Quantizations in the order in which one is taken when none is asked for: small with little loss
/// first, then larger ones, then smaller ones.
const PREFERRED: &[&str] = &[
    "Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS", "MXFP4", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1",
    "Q6_K", "Q8_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "F16", "BF16", "F32",
];
/// Endings of files beside the weights that loaders read.
const SUPPORT: &[&str] = &["json", "jinja", "txt", "model", "tiktoken"];
/// Weights in forms that are not loaded.
const FOREIGN_WEIGHTS: &[&str] = &["bin", "pt", "pth", "ckpt", "h5", "msgpack", "onnx", "npz", "tflite"];
/// Names shown in an error, at most.
const SHOWN: usize = 12;

/// The files that are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    pub files: Vec<RemoteFile>,
    /// What was chosen for the user, if it was.
    pub remark: Option<String>,
}

/// Chooses among the files of a repository.
pub fn select(model: &ModelName, files: &[RemoteFile], choice: &Choice) -> Result<Selected> {
    let (include, exclude) = (globs(&choice.include)?, globs(&choice.exclude)?);
    let included = |file: &&RemoteFile| include.is_match(file.path.as_str());
    let mut remark = None;
    let mut chosen: Vec<&RemoteFile> = if choice.all {
        files.iter().collect()
    } else if let Some(tag) = &choice.file {
        let mut chosen = gguf(model, files, tag)?;
        chosen.extend(files.iter().filter(included));
        chosen
    } else if choice.include.is_empty() {
        let (chosen, chose) = needed(model, files)?;
        remark = chose;
        chosen
    } else {
        files.iter().filter(included).collect()
    };
    chosen.retain(|file| !exclude.is_match(file.path.as_str()));
    chosen.sort_by(|a, b| a.path.cmp(&b.path));
    chosen.dedup_by(|a, b| a.path == b.path);
    if chosen.is_empty() {
        let message = format!("no file of {model} is chosen; it has {}", listed(files.iter()));
        return Err(Error::new(Code::FileNotFound, message)
            .hint("change --include and --exclude, or fetch everything with --all-files"));
    }
    Ok(Selected { files: chosen.into_iter().cloned().collect(), remark })
}

/// What running the model takes.
fn needed<'a>(model: &ModelName, files: &'a [RemoteFile]) -> Result<(Vec<&'a RemoteFile>, Option<String>)> {
    let of_kind =
        |extension: &'static str| files.iter().filter(move |file| file.path.has_extension(extension));
    let weights = safetensors(of_kind("safetensors").collect());
    let ggufs: Vec<&RemoteFile> = of_kind("gguf").collect();
    if weights.is_empty() && !ggufs.is_empty() {
        let (chosen, remark) = preferred(model, &ggufs)?;
        return Ok((chosen, remark));
    }
    let foreign = files.iter().filter(|file| FOREIGN_WEIGHTS.iter().any(|end| file.path.has_extension(end)));
    let foreign: Vec<&RemoteFile> = foreign.collect();
    if weights.is_empty() && !foreign.is_empty() {
        let message =
            format!("{model} has no weights as safetensors or GGUF, only {}", listed(foreign.into_iter()));
        return Err(Error::new(Code::ModelUnsupported, message)
            .hint("look for a conversion of it, or fetch it as it is with --all-files"));
    }
    // Of a pipeline of several models each lies in a folder of its own.
    let is_pipeline = weights.iter().all(|file| folder(&file.path).is_some()) && !weights.is_empty();
    let supports = |file: &&RemoteFile| is_support(&file.path, is_pipeline);
    Ok((files.iter().filter(supports).chain(weights).collect(), None))
}

/// The safetensors files that loaders read: those of the model, not another form of the same.
fn safetensors(all: Vec<&RemoteFile>) -> Vec<&RemoteFile> {
    let (root, below): (Vec<_>, Vec<_>) = all.into_iter().partition(|file| folder(&file.path).is_none());
    let modules: Vec<&RemoteFile> =
        below.iter().copied().filter(|file| folder(&file.path).is_some_and(is_module)).collect();
    if root.is_empty() {
        return if modules.is_empty() { below } else { modules };
    }
    let whole = |file: &&&RemoteFile| {
        let name = file.path.file_name();
        name == "model.safetensors" || (name.starts_with("model-") && shard(name).is_some())
    };
    let model = |file: &&&RemoteFile| file.path.file_name().starts_with("model");
    let other = |file: &&&RemoteFile| !file.path.file_name().starts_with("consolidated");
    let pick = |is: &dyn Fn(&&&RemoteFile) -> bool| root.iter().filter(is).copied().collect::<Vec<_>>();
    let picked = [pick(&whole), pick(&model), pick(&other)].into_iter().find(|picked| !picked.is_empty());
    let mut weights = picked.unwrap_or(root);
    weights.extend(modules);
    weights
}

/// Whether a file is configuration, a tokenizer or a template.
fn is_support(path: &SnapshotPath, is_pipeline: bool) -> bool {
    let name = path.file_name();
    let place_fits = match folder(path) {
        None => true,
        Some("additional_chat_templates") => path.has_extension("jinja"),
        Some(folder) => is_pipeline || is_module(folder),
    };
    let of_other_weights =
        ["bin", "h5", "msgpack"].iter().any(|end| name.ends_with(&format!(".{end}.index.json")));
    place_fits
        && SUPPORT.iter().any(|end| path.has_extension(end))
        && !of_other_weights
        && !name.starts_with('.')
        && !matches!(name, "trainer_state.json" | "requirements.txt")
}

/// The folder that a file lies in, if it does not lie at the top.
fn folder(path: &SnapshotPath) -> Option<&str> {
    path.as_str().rsplit_once('/').map(|(folder, _)| folder)
}

/// Whether a folder is a module of sentence-transformers, such as `1_Pooling`.
fn is_module(folder: &str) -> bool {
    folder.split_once('_').is_some_and(|(number, name)| {
        !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()) && !name.contains('/')
    })
}

/// The GGUF that is meant, with all of its parts.
fn gguf<'a>(model: &ModelName, files: &'a [RemoteFile], tag: &FileChoice) -> Result<Vec<&'a RemoteFile>> {
    let ggufs: Vec<&RemoteFile> = files.iter().filter(|file| file.path.has_extension("gguf")).collect();
    let mut groups = grouped(&ggufs);
    groups.retain(|_, parts| parts.iter().any(|file| tag.matches(&file.path)));
    let mut groups: Vec<_> = groups.into_iter().collect();
    match groups.len() {
        1 => Ok(groups.pop().map(|(_, parts)| parts).unwrap_or_default()),
        0 => Err(Error::new(
            Code::FileNotFound,
            format!("{model} has no GGUF {tag}; it has {}", listed(ggufs.into_iter())),
        )
        .detail("reference", model.to_string())
        .hint("name one that it has, after the colon")),
        _ => Err(several(model, groups.into_iter().map(|(name, _)| name))),
    }
}

/// The GGUF to take when none is named.
fn preferred<'a>(
    model: &ModelName,
    ggufs: &[&'a RemoteFile],
) -> Result<(Vec<&'a RemoteFile>, Option<String>)> {
    let groups = grouped(ggufs);
    if groups.len() == 1 {
        return Ok((groups.into_values().flatten().collect(), None));
    }
    for tag in PREFERRED {
        let choice = FileChoice::Quantization((*tag).to_owned());
        let mut fitting: Vec<_> =
            groups.iter().filter(|(_, parts)| parts.iter().any(|file| choice.matches(&file.path))).collect();
        match (fitting.pop(), fitting.is_empty()) {
            (Some((_, parts)), true) => {
                let remark =
                    format!("{model} has {} quantizations; taking {tag} (others: {model}:TAG)", groups.len());
                return Ok((parts.clone(), Some(remark)));
            }
            (Some(_), false) => break,
            (None, _) => {}
        }
    }
    Err(several(model, groups.into_keys()))
}

fn several(model: &ModelName, names: impl Iterator<Item = String>) -> Error {
    let names: Vec<String> = names.collect();
    let shown = names.get(..SHOWN).unwrap_or(&names).join(", ");
    Error::new(Code::ModelAmbiguous, format!("{model} has several GGUF files that fit: {shown}"))
        .detail("matches", names)
        .hint(format!("name one after a colon: {model}:FILE.gguf"))
}

/// GGUF models by name: the parts of a split one belong together. Projectors of images are no models.
fn grouped<'a>(ggufs: &[&'a RemoteFile]) -> BTreeMap<String, Vec<&'a RemoteFile>> {
    let mut groups: BTreeMap<String, Vec<&RemoteFile>> = BTreeMap::new();
    for file in ggufs.iter().filter(|file| !file.path.file_name().to_ascii_lowercase().contains("mmproj")) {
        let path = file.path.as_str();
        let name = shard(path).map_or_else(|| path.to_owned(), |stem| format!("{stem}.gguf"));
        groups.entry(name).or_default().push(file);
    }
    groups
}

/// The name without its number, of one part of several: `a` of `a-00001-of-00002.gguf`.
fn shard(name: &str) -> Option<&str> {
    let (stem, _) = name.rsplit_once('.')?;
    let (rest, total) = stem.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() >= 3 && text.bytes().all(|c| c.is_ascii_digit());
    (is_number(number) && is_number(total)).then_some(stem)
}

/// Patterns as `hf download` has them: `*` stands for slashes too.
fn globs(patterns: &[String]) -> Result<GlobSet> {
    let wrong = |pattern: &str, error: &globset::Error| {
        Error::new(
            Code::InvalidRequest,
            format!("'{}' is no pattern: {}", pattern.escape_debug(), error.kind()),
        )
        .hint("write one such as '*.safetensors' or 'onnx/*'")
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|error| wrong(pattern, &error))?);
    }
    set.build().map_err(|error| wrong(&patterns.join(" "), &error))
}

fn listed<'a>(files: impl Iterator<Item = &'a RemoteFile>) -> String {
    let names: Vec<&str> = files.map(|file| file.path.as_str()).collect();
    match names.get(..SHOWN) {
        _ if names.is_empty() => "nothing".to_owned(),
        Some(first) if names.len() > SHOWN => {
            format!("{} and {} more", first.join(", "), names.len() - SHOWN)
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Checksum, Host};

    fn model() -> ModelName {
        ModelName::parse_pair(Host::HuggingFace, "org/name").expect("a name")
    }

    fn selected(paths: &[&str], choice: &Choice) -> Result<Vec<String>> {
        let files: Vec<RemoteFile> = paths
            .iter()
            .map(|path| RemoteFile {
                path: path.parse().expect("a path"),
                bytes: 1,
                checksum: Checksum::GitSha1([0; 20]),
                xet: false,
            })
            .collect();
        let selected = select(&model(), &files, choice)?;
        Ok(selected.files.iter().map(|file| file.path.to_string()).collect())
    }

    fn needed(paths: &[&str]) -> Vec<String> {
        selected(paths, &Choice::default()).expect("a choice")
    }

    fn tagged(paths: &[&str], tag: &str) -> Result<Vec<String>> {
        selected(paths, &Choice { file: Some(tag.parse().expect("a tag")), ..Choice::default() })
    }

    #[test]
    fn a_model_takes_its_weights_once_and_what_loaders_read() {
        let paths = [
            ".gitattributes",
            "README.md",
            "config.json",
            "generation_config.json",
            "merges.txt",
            "model.fp16.safetensors",
            "model.safetensors",
            "modeling_custom.py",
            "onnx/model.onnx",
            "onnx/config.json",
            "original/params.json",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "tokenizer.json",
            "tokenizer.model",
            "chat_template.jinja",
            "additional_chat_templates/tool_use.jinja",
            "vocab.json",
            "trainer_state.json",
            "qwen.tiktoken",
        ];
        assert_eq!(
            needed(&paths),
            [
                "additional_chat_templates/tool_use.jinja",
                "chat_template.jinja",
                "config.json",
                "generation_config.json",
                "merges.txt",
                "model.safetensors",
                "qwen.tiktoken",
                "tokenizer.json",
                "tokenizer.model",
                "vocab.json",
            ]
        );
    }

    #[test]
    fn shards_come_with_their_index() {
        let paths = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "consolidated.safetensors",
        ];
        assert_eq!(needed(&paths), [paths[0], paths[1], paths[2], paths[3]]);
    }

    #[test]
    fn an_embedding_model_takes_its_modules() {
        let paths = [
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "config.json",
            "config_sentence_transformers.json",
            "model.safetensors",
            "modules.json",
            "openvino/openvino_model.xml",
            "sentence_bert_config.json",
            "data_config/x.json",
        ];
        let all_but = |left_out: &[usize]| {
            let kept = (0..paths.len()).filter(|at| !left_out.contains(at));
            kept.map(|at| paths[at]).collect::<Vec<_>>()
        };
        assert_eq!(needed(&paths), all_but(&[3, 8, 10]));
    }

    #[test]
    fn a_pipeline_takes_its_folders() {
        let paths = ["model_index.json", "unet/config.json", "unet/model.safetensors", "unet/model.bin"];
        assert_eq!(needed(&paths), [paths[0], paths[1], paths[2]]);
    }

    #[test]
    fn of_several_quantizations_one_is_taken() {
        let paths = [
            "README.md",
            "config.json",
            "m-Q2_K.gguf",
            "m-Q4_K_M.gguf",
            "m-Q8_0.gguf",
            "mmproj-m-Q4_K_M.gguf",
        ];
        assert_eq!(needed(&paths), ["m-Q4_K_M.gguf"]);
        assert_eq!(needed(&["config.json", "odd.gguf"]), ["odd.gguf"]);
        assert_eq!(tagged(&paths, "q8_0").expect("a choice"), ["m-Q8_0.gguf"]);
        assert_eq!(tagged(&paths, "m-Q2_K.gguf").expect("a choice"), ["m-Q2_K.gguf"]);
        assert_eq!(tagged(&paths, "Q5_0").expect_err("none").code(), Code::FileNotFound);
        let two = ["a-Q4_0.gguf", "b-Q4_0.gguf"];
        assert_eq!(tagged(&two, "Q4_0").expect_err("two").code(), Code::ModelAmbiguous);
        assert_eq!(selected(&two, &Choice::default()).expect_err("two").code(), Code::ModelAmbiguous);
    }

    #[test]
    fn the_parts_of_a_split_model_belong_together() {
        let paths = ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf", "m-Q4_0.gguf"];
        assert_eq!(tagged(&paths, "Q8_0").expect("a choice"), [paths[0], paths[1]]);
        assert_eq!(needed(&paths), [paths[2]]);
    }

    #[test]
    fn weights_that_nobody_loads_are_refused_unless_asked_for() {
        let paths = ["config.json", "pytorch_model.bin"];
        assert_eq!(
            selected(&paths, &Choice::default()).expect_err("no weights").code(),
            Code::ModelUnsupported
        );
        assert_eq!(selected(&paths, &Choice { all: true, ..Choice::default() }).expect("all"), paths);
        assert_eq!(needed(&["config.json", "tokenizer.json"]).len(), 2);
    }

    #[test]
    fn patterns_take_the_place_of_what_is_needed() {
        let paths = ["a.py", "config.json", "model.safetensors", "onnx/model.onnx"];
        let globs = |list: &[&str]| list.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
        let choice =
            Choice { include: globs(&["*.onnx", "*.json"]), exclude: globs(&["conf*"]), ..Choice::default() };
        assert_eq!(selected(&paths, &choice).expect("a choice"), ["onnx/model.onnx"]);
        let choice = Choice { exclude: globs(&["*.safetensors"]), ..Choice::default() };
        assert_eq!(selected(&paths, &choice).expect("a choice"), ["config.json"]);
        let choice = Choice { include: globs(&["absent"]), ..Choice::default() };
        assert_eq!(selected(&paths, &choice).expect_err("nothing").code(), Code::FileNotFound);
        let choice = Choice { include: globs(&["[a"]), ..Choice::default() };
        assert_eq!(selected(&paths, &choice).expect_err("no pattern").code(), Code::InvalidRequest);
    }
}
