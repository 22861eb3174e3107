//! What takes its time, on standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line that shows what takes its time, where somebody watches; else one line at its start.
pub struct Step {
    bar: ProgressBar,
}

impl Step {
    /// Begins to show it.
    pub fn new(what: &str) -> Self {
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner()).with_message(what.to_owned());
        if bar.is_hidden() {
            eprintln!("{what}");
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    /// It is done: the line goes.
    pub fn done(self) {
        self.bar.finish_and_clear();
    }
}
