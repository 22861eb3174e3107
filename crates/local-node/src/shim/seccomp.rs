//! The default system call filter (`seccompProfile: RuntimeDefault`).
//!
//! It refuses, with EPERM, what the default profiles of Docker and containerd refuse to a container without
//! CAP_SYS_ADMIN; unlike those it names what is refused and lets calls through that it does not know. A program under
//! it cannot gain privileges by set-user-ID either, because the filter is set after capabilities are dropped.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Calls that are refused whatever their arguments.
const REFUSED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
];

/// Flags of clone(2) that make namespaces.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// Sets the filter for this process and what it executes.
pub fn apply() -> Result<(), String> {
    for program in programs().map_err(|error| error.to_string())? {
        apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn programs() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let mut any = Vec::new();
    for bit in (0..31).map(|shift| 1 << shift).filter(|bit| NAMESPACES & bit != 0) {
        let bit = u64::try_from(bit).unwrap_or_default();
        let operator = SeccompCmpOp::MaskedEq(bit);
        any.push(SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, operator, bit)?])?);
    }
    rules.insert(libc::SYS_clone, any);
    let refuse = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let main = SeccompFilter::new(rules, SeccompAction::Allow, refuse(libc::EPERM), arch)?;
    // clone3 hides its flags behind a pointer: programs fall back to clone when it is not there.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let clone3 = SeccompFilter::new(clone3, SeccompAction::Allow, refuse(libc::ENOSYS), arch)?;
    Ok(vec![main.try_into()?, clone3.try_into()?])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_filter_can_be_built_here() {
        assert_eq!(super::programs().unwrap().len(), 2);
    }
}
