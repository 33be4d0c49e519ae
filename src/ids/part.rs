//! Files that are numbered parts of one model.

/// The name of one of several files: `<stem>-00001-of-00003.gguf`, or `.safetensors`.
///
/// llama.cpp finds the parts of a model by these names (`llama_split_path` in llama.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// What comes before the number, with the folders.
    pub stem: &'a str,
    /// From 1.
    pub number: usize,
    pub count: usize,
    /// What comes after the count, such as `.gguf`.
    pub end: &'a str,
}

impl<'a> Part<'a> {
    /// Nobody splits a model into more files; a hostile name must not make us list them.
    const MOST: usize = 10_000;

    /// Understands a file's name or path.
    pub fn parse(path: &'a str) -> Option<Self> {
        let end = [".safetensors", ".gguf"].into_iter().find(|end| path.ends_with(end))?;
        let rest = path.strip_suffix(end)?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let five = |text: &str| text.len() == 5 && text.bytes().all(|digit| digit.is_ascii_digit());
        if !five(count) || !five(number) {
            return None;
        }
        let (count, number): (usize, usize) = (count.parse().ok()?, number.parse().ok()?);
        let fits = (1..=count).contains(&number) && count <= Self::MOST;
        fits.then_some(Self { stem, number, count, end })
    }

    /// The name of another part.
    pub fn sibling(&self, number: usize) -> String {
        let Self { stem, count, end, .. } = self;
        format!("{stem}-{number:05}-of-{count:05}{end}")
    }

    /// Whether both are parts of the same model.
    pub fn belongs_with(&self, other: &Self) -> bool {
        (self.stem, self.count, self.end) == (other.stem, other.count, other.end)
    }
}

/// The file that stands for all of these: the only one, or the first part where all are parts of one
/// model. `path` tells a file's path.
pub fn leader<T: Copy>(files: impl IntoIterator<Item = T>, path: impl Fn(&T) -> &str) -> Option<T> {
    let files: Vec<T> = files.into_iter().collect();
    if let [only] = files.as_slice() {
        return Some(*only);
    }
    let parts: Option<Vec<Part>> = files.iter().map(|file| Part::parse(path(file))).collect();
    let parts = parts?;
    let whole = parts.windows(2).all(|pair| matches!(pair, [a, b] if a.belongs_with(b)));
    let first = (0..parts.len()).min_by_key(|&at| parts.get(at).map(|part| part.number))?;
    files.get(first).copied().filter(|_| whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_from_a_name() {
        let parse = |path| Part::parse(path).map(|it| (it.stem, it.number, it.count, it.end));
        assert_eq!(parse("a/m-00001-of-00003.gguf"), Some(("a/m", 1, 3, ".gguf")));
        assert_eq!(parse("model-00003-of-00003.safetensors"), Some(("model", 3, 3, ".safetensors")));
        for other in
            ["m-1-of-3.gguf", "m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m.gguf", "-of-.gguf"]
        {
            assert!(Part::parse(other).is_none(), "{other}");
        }
        assert!(Part::parse("m-00001-of-99999.gguf").is_none(), "nobody has that many");
        let part = Part::parse("a/m-00002-of-00003.gguf").expect("a part");
        assert_eq!(part.sibling(1), "a/m-00001-of-00003.gguf");
    }

    #[test]
    fn the_first_part_stands_for_one_model_only() {
        let leader = |files: &[&'static str]| leader(files.iter().copied(), |file| file);
        assert_eq!(leader(&["m.gguf"]), Some("m.gguf"));
        assert_eq!(leader(&[]), None);
        assert_eq!(leader(&["m.gguf", "n.gguf"]), None);
        let (first, second) = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf");
        assert_eq!(leader(&[second, first]), Some(first));
        assert_eq!(leader(&[first, second, "n-00001-of-00002.gguf"]), None);
        assert_eq!(leader(&[first, second, "m.gguf"]), None);
    }
}
