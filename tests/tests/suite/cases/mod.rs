//! Every case, in the order in which they run.

mod agents;
mod bad_input;
mod bad_install;
mod chaos;
mod crash;
mod isolation;
mod lifecycle;
mod limits;
mod rbac;
mod rolling;
mod seed;
mod takeover;
mod tasks;
mod uninstall;

use e2e::ground::Need;

use crate::case::{Case, case};

/// Every case.
pub fn all() -> Vec<Case> {
    vec![
        case!(seed::the_seed_pool_is_what_kubectl_shows),
        case!(seed::the_python_agent_runs_unchanged, needs: &[Need::Python]),
        case!(agents::agents_held_at_once_have_a_pod_and_an_environment_each),
        case!(agents::sixty_python_agents_at_twenty_a_time_all_succeed, needs: &[Need::Python]),
        case!(agents::a_pod_that_is_killed_is_a_typed_error_and_never_another_agents_pod),
        case!(lifecycle::a_pool_lives_and_ends_by_the_api_alone),
        case!(lifecycle::a_sandbox_ends_at_its_time_and_leaves_nothing),
        case!(tasks::tasks_are_counted_exactly_and_their_pods_come_back),
        case!(isolation::a_sandbox_drives_neither_its_own_daemons_nor_a_neighbours),
        case!(isolation::a_token_opens_nothing_of_the_next_owner),
        case!(bad_input::the_lifecycle_api_says_what_was_wrong_and_leaves_nothing),
        case!(bad_input::a_manifest_of_wrong_types_is_refused_with_its_path),
        case!(bad_input::a_port_in_use_is_named_and_nothing_is_started, needs: &[Need::OwnProcess]),
        case!(limits::a_sandbox_that_eats_its_memory_is_oom_killed_and_says_so),
        case!(limits::a_sandbox_that_forks_without_end_stops_at_its_limit),
        case!(crash::sandboxes_outlive_a_killed_controller),
        case!(crash::sandboxes_outlive_a_killed_server),
        case!(rolling::agents_notice_neither_an_upgrade_nor_a_rollback, needs: &[Need::Helm], minutes: 20),
        case!(chaos::creates_end_when_the_controller_dies, minutes: 15),
        case!(chaos::creates_end_when_a_server_dies, minutes: 15),
        case!(chaos::creates_end_when_the_api_server_dies, needs: &[Need::ApiServer], minutes: 15),
        case!(chaos::creates_end_when_a_node_stops, needs: &[Need::Nodes], minutes: 20),
        case!(bad_install::wrong_values_are_refused_with_their_names, needs: &[Need::Helm]),
        case!(bad_install::an_old_kubernetes_is_refused_with_the_oldest_that_works, needs: &[Need::Helm]),
        case!(bad_install::a_namespace_that_forbids_privileges_is_named, needs: &[Need::Helm, Need::Admission]),
        case!(bad_install::an_image_that_cannot_be_pulled_is_named_to_pool_and_client),
        case!(bad_install::a_volume_without_a_storage_class_is_told, needs: &[Need::Volumes]),
        case!(rbac::every_verb_granted_is_used_and_none_used_is_refused, needs: &[Need::Audit]),
        case!(uninstall::sandboxes_stay_when_the_values_say_so_and_the_next_release_has_them, needs: &[Need::Helm], minutes: 20),
        case!(uninstall::everything_goes_when_the_values_say_so_and_nothing_hangs, needs: &[Need::Helm], minutes: 20),
        case!(takeover::what_a_published_controller_left_is_taken_over, needs: &[Need::Helm], minutes: 20),
    ]
}

/// Whether the reader of audit logs sees what it must see.
pub fn check_audit() -> Result<(), String> {
    rbac::check_audit()
}
