//! Runs one case on one ground, from its objects to its last moment.

use serde_json::{Map, Value, json};

use super::case::Case;
use super::ground::Ground;
use super::moment::{self, Watched};
use super::step;
use crate::api::{Difference, Table, compare};

/// Moment by moment, what was seen.
pub type Account = Map<String, Value>;

/// What is expected of a case: the recording, and where the ground may differ from it.
#[derive(Debug, Clone)]
pub struct Judge {
    /// What a kubelet made of it; `None` while it is being recorded.
    pub recording: Option<Account>,
    /// Differences that are meant.
    pub table: Table,
}

impl Judge {
    /// Where an account differs from the recording.
    pub fn differences(&self, case: &str, account: &Account) -> Vec<Difference> {
        let empty = Account::new();
        let recording = self.recording.as_ref().unwrap_or(&empty);
        let names = recording.keys().chain(account.keys().filter(|name| !recording.contains_key(*name)));
        let null = Value::Null;
        let of = |account: &Account, name: &String| account.get(name).unwrap_or(&null).clone();
        names.flat_map(|name| compare(&format!("{case}/{name}"), &of(account, name), &of(recording, name))).collect()
    }

    fn moment(&self, name: &str) -> Option<&Value> {
        self.recording.as_ref().and_then(|recording| recording.get(name))
    }

    fn agrees(&self, case: &str, moment: &str, status: &Value) -> bool {
        let Some(recorded) = self.moment(moment) else { return false };
        let differences =
            compare(&format!("{case}/{moment}"), &json!({"status": status}), &json!({"status": recorded["status"]}));
        self.table.judge(differences, false).0.is_empty()
    }
}

/// Runs a case.
pub async fn run(ground: &Ground, case: &Case, judge: &Judge) -> anyhow::Result<Account> {
    let account = moments(ground, case, judge).await;
    ground.remove(&case.name).await?;
    account
}

async fn moments(ground: &Ground, case: &Case, judge: &Judge) -> anyhow::Result<Account> {
    let mut account = Account::new();
    for object in &case.objects {
        step::create(ground, object).await?;
    }
    let mut watched = Watched::start(ground, &case.name);
    if let Err(error) = step::create(ground, &case.object()).await {
        account.insert("created".to_owned(), json!({"refused": error.to_string()}));
        return Ok(account);
    }
    for moment in &case.moments {
        for step in &moment.steps {
            if let Err(error) = step::take(ground, &case.name, step).await {
                account.insert(moment.name.clone(), json!({"refused": error.to_string()}));
                return Ok(account);
            }
        }
        let (status, facts) = watched.reach(moment, |status| judge.agrees(&case.name, &moment.name, status)).await;
        let never = status.get("never").is_some();
        let mut value = moment::beside(ground, &case.name, moment, &facts, judge.moment(&moment.name)).await;
        value.insert("status".to_owned(), status);
        account.insert(moment.name.clone(), value.into());
        if never {
            break;
        }
    }
    Ok(account)
}
