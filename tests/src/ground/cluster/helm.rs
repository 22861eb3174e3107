//! helm on the suite's release.

use std::process::Command;

use anyhow::Result;

use crate::ground::Setting;
use crate::ground::tool::{Said, says};

/// helm, in the release's namespace.
pub struct Helm<'a> {
    setting: &'a Setting,
}

impl<'a> Helm<'a> {
    pub(super) fn new(setting: &'a Setting) -> Self {
        Self { setting }
    }

    /// helm with arguments of its own.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("helm");
        command.env("KUBECONFIG", &self.setting.kubeconfig).args(arguments);
        command.args(["--namespace", &self.setting.platform_namespace]);
        command
    }

    /// What helm says to arguments of its own.
    pub fn says(&self, arguments: &[&str]) -> Result<Said> {
        says(&mut self.command(arguments), "")
    }

    /// Installs or upgrades the release from a chart, with the suite's values and more arguments, and waits.
    pub fn upgrade_from(&self, chart: &std::path::Path, more: &[&str]) -> Result<Said> {
        let mut command = self.command(&["upgrade", "--install", &self.setting.release]);
        command.arg(chart).arg("--create-namespace").arg("--values").arg(&self.setting.values);
        command.args(["--wait", "--timeout", "5m"]).args(more);
        says(&mut command, "")
    }

    /// Installs or upgrades the release from its own chart.
    pub fn upgrade(&self, more: &[&str]) -> Result<Said> {
        self.upgrade_from(&self.setting.chart, more)
    }

    /// Goes back to a revision of the release; 0 is the one before.
    pub fn rollback(&self, revision: &str) -> Result<Said> {
        self.says(&["rollback", &self.setting.release, revision, "--wait", "--timeout", "5m"])
    }

    /// Removes the release, and waits until its objects are gone.
    pub fn uninstall(&self, more: &[&str]) -> Result<Said> {
        let mut command = self.command(&["uninstall", &self.setting.release, "--wait", "--timeout", "5m"]);
        says(command.args(more), "")
    }
}
