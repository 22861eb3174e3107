//! What the roles on the cluster grant to our accounts.

use std::collections::BTreeSet;

use anyhow::Result;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::ListParams;
use kube::{Api, Client};

use super::Right;

/// Reads every binding that names an account of a namespace.
pub async fn read(client: &Client, namespace: &str) -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    let everything = ListParams::default();
    for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&everything).await? {
        for account in accounts(binding.subjects.as_deref(), namespace) {
            rights.extend(expand(&account, &rules(client, &binding.role_ref, None).await?));
        }
    }
    for binding in Api::<RoleBinding>::all(client.clone()).list(&everything).await? {
        for account in accounts(binding.subjects.as_deref(), namespace) {
            let of = binding.metadata.namespace.as_deref();
            rights.extend(expand(&account, &rules(client, &binding.role_ref, of).await?));
        }
    }
    Ok(rights)
}

fn accounts(subjects: Option<&[Subject]>, namespace: &str) -> Vec<String> {
    let ours = |s: &&Subject| s.kind == "ServiceAccount" && s.namespace.as_deref() == Some(namespace);
    subjects.unwrap_or_default().iter().filter(ours).map(|s| s.name.clone()).collect()
}

async fn rules(client: &Client, role: &RoleRef, namespace: Option<&str>) -> Result<Vec<PolicyRule>> {
    let rules = match (role.kind.as_str(), namespace) {
        ("Role", Some(namespace)) => Api::<Role>::namespaced(client.clone(), namespace).get(&role.name).await?.rules,
        _ => Api::<ClusterRole>::all(client.clone()).get(&role.name).await?.rules,
    };
    Ok(rules.unwrap_or_default())
}

fn expand(account: &str, rules: &[PolicyRule]) -> Vec<Right> {
    let mut rights = Vec::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                rights.extend(rule.verbs.iter().map(|verb| Right {
                    account: account.to_owned(),
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                }));
            }
        }
    }
    rights
}
