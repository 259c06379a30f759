//! A broken promise, and all that helps to see why.

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which checker: one word, for the reproducing line.
    pub check: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// When it was found, in virtual nanoseconds.
    pub at_ns: u64,
    /// The operations and effects concerned, one per line.
    pub details: Vec<String>,
}

/// What every checker answers.
pub type Checked = Result<(), Box<Violation>>;

impl Violation {
    /// A violation without details yet.
    pub fn new(check: &'static str, at_ns: u64, message: String) -> Box<Self> {
        Box::new(Self {
            check,
            message,
            at_ns,
            details: Vec::new(),
        })
    }

    /// The same with details.
    pub fn with(mut self: Box<Self>, details: Vec<String>) -> Box<Self> {
        self.details.extend(details);
        self
    }
}
