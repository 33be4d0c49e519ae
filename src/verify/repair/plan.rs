//! What could be made good, and how.

use std::path::PathBuf;

use super::Copies;
use crate::store::Store;
use crate::verify::Findings;
use crate::verify::problem::{HubFile, Needed, Remedy, Target};

/// Everything that can be made good, each thing once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
}

/// One thing to be made good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it lies.
    pub place: PathBuf,
    pub action: Action,
}

/// How it is made good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A copy of one of these files, the first that holds what is needed.
    Copy {
        needed: Needed,
        from: Vec<PathBuf>,
    },
    /// A download.
    Fetch {
        needed: Needed,
        file: HubFile,
    },
    /// A link that holds this.
    Link {
        target: PathBuf,
    },
    Mode(u32),
    /// There is no good copy.
    Nothing {
        needed: Needed,
    },
}

impl Plan {
    /// The plan for what was found, with the copies there are; `online` says whether the hub may be asked.
    pub fn new(findings: &Findings, copies: &Copies, store: &Store, online: bool) -> Self {
        let mut plan = Self::default();
        for problem in findings.judged.iter().flat_map(|judged| &judged.problems) {
            let step = match &problem.remedy {
                Remedy::Content(needed) => {
                    let place = needed.target.place(store);
                    let from = copies.of(needed, &place);
                    let needed = needed.clone();
                    let action = match &needed.hub {
                        Some(file) if from.is_empty() && online => {
                            Action::Fetch { file: file.clone(), needed }
                        }
                        _ if from.is_empty() => Action::Nothing { needed },
                        _ => Action::Copy { needed, from },
                    };
                    Step { place, action }
                }
                Remedy::Link { link, target } => {
                    Step { place: link.clone(), action: Action::Link { target: target.clone() } }
                }
                Remedy::Mode { path, mode } => Step { place: path.clone(), action: Action::Mode(*mode) },
                Remedy::Advice(_) => continue,
            };
            plan.add(step);
        }
        // Links lead to content: it comes first, and modes are those of what is there in the end.
        plan.steps.sort_by_key(|step| match step.action {
            Action::Copy { .. } | Action::Fetch { .. } | Action::Nothing { .. } => 0,
            Action::Link { .. } => 1,
            Action::Mode(_) => 2,
        });
        plan
    }

    /// Several models may miss the same; content that is brought back has the right mode already.
    fn add(&mut self, step: Step) {
        let same = |known: &&mut Step| known.place == step.place && known.is_content() == step.is_content();
        match self.steps.iter_mut().find(same) {
            None => self.steps.push(step),
            Some(known) if matches!(known.action, Action::Nothing { .. }) => *known = step,
            Some(_) => {}
        }
    }

    /// Whether anything can be done.
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| matches!(step.action, Action::Nothing { .. }))
    }

    /// Bytes that will be copied.
    pub fn bytes(&self) -> u64 {
        self.steps.iter().map(Step::bytes).sum()
    }
}

impl Step {
    fn is_content(&self) -> bool {
        !matches!(self.action, Action::Link { .. } | Action::Mode(_))
    }

    /// Size of the content, as far as it is known.
    pub fn bytes(&self) -> u64 {
        match &self.action {
            Action::Copy { needed, .. } | Action::Fetch { needed, .. } => needed.bytes.unwrap_or_default(),
            _ => 0,
        }
    }
}

impl Target {
    /// Where the content belongs.
    pub fn place(&self, store: &Store) -> PathBuf {
        match self {
            Self::Blob(digest) => store.blob(digest),
            Self::Foreign { path, .. } => path.clone(),
        }
    }
}
