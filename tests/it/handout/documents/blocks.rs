//! Fenced blocks of a page.

/// What a block's fence says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// A script.
    Sh,
    /// Commands and what they print.
    Console,
    Other,
}

/// A fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    pub page: String,
    /// Of the fence, counted from 1.
    pub line: usize,
    pub language: Language,
    pub lines: Vec<String>,
    /// Why it is not run.
    pub not_run: Option<String>,
    /// Whether `make demo` shows it.
    pub demo: bool,
}

/// A command of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    pub command: String,
    /// What it prints, as far as the page tells.
    pub output: Vec<String>,
}

impl Block {
    pub fn runs(&self) -> bool {
        self.language != Language::Other && self.not_run.is_none() && !self.demo
    }

    /// The commands of a console, or the whole script as one.
    pub fn steps(&self) -> Vec<Step> {
        if self.language == Language::Sh {
            return vec![Step { command: self.lines.join("\n"), output: Vec::new() }];
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut continues = false;
        for line in &self.lines {
            match (steps.last_mut(), line.strip_prefix("$ ")) {
                (Some(step), _) if continues => step.command = format!("{}\n{line}", step.command),
                (_, Some(command)) => steps.push(Step { command: command.to_owned(), output: Vec::new() }),
                (Some(step), None) => step.output.push(line.clone()),
                (None, None) => panic!("{}:{}: output before a command", self.page, self.line),
            }
            continues = line.ends_with('\\');
        }
        steps
    }
}

/// The blocks of a page, in order.
pub fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    let mut before = "";
    for (at, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            inside = !inside;
            if inside {
                let comment = |kind: &str| before.strip_prefix(&format!("<!-- {kind}")).map(str::to_owned);
                blocks.push(Block {
                    page: page.to_owned(),
                    line: at + 1,
                    language: match language {
                        "sh" => Language::Sh,
                        "console" => Language::Console,
                        _ => Language::Other,
                    },
                    lines: Vec::new(),
                    not_run: comment("not run: ").map(|reason| reason.trim_end_matches(" -->").to_owned()),
                    demo: comment("shown by: make demo").is_some(),
                });
            }
        } else if inside {
            blocks.last_mut().expect("a block").lines.push(line.to_owned());
        }
        before = line.trim_start();
    }
    assert!(!inside, "{page}: a block has no end");
    blocks
}

/// The lines that stand in no block.
pub fn outside(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        })
        .collect()
}

/// The text with numbers that differ from run to run replaced: times, rates.
pub fn without_what_varies(line: &str) -> String {
    let number = r"[0-9][0-9.,]*";
    let pattern = format!(r"{number} ?(ms|s|GB/s|MB/s|tok/s|tokens/s)\b");
    let times = regex::Regex::new(&pattern).expect("a pattern");
    times.replace_all(line.trim_end(), "N $1").into_owned()
}

/// Whether these lines were printed; a `…` alone stands for any lines, and blank lines do not count.
pub fn matches(expected: &[String], printed: &[String]) -> bool {
    let Some((first, rest)) = expected.split_first() else { return printed.is_empty() };
    if first.trim() == "…" {
        return (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]));
    }
    printed.split_first().is_some_and(|(line, others)| {
        without_what_varies(first) == without_what_varies(line) && matches(rest, others)
    })
}
