//! Catches the runtime library's error records: they name the causes that its error values lose on their way
//! between processes.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Writes each error record as a line to the shim's log.
struct Complaints(Arc<File>);

/// Directs error records of this process and its forks to the shim's log, which is its standard error now. The
/// descriptor is a copy: in a container standard error is the container's.
pub fn install() {
    if let Ok(copy) = nix::unistd::dup(std::io::stderr()) {
        let _ = tracing::subscriber::set_global_default(Complaints(Arc::new(File::from(copy))));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write;
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
    }
}

impl Subscriber for Complaints {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let _ = writeln!(&*self.0, "{}", line.0.trim_end());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
