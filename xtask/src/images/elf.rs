//! Binaries: are they static and for the right processor, and can they be smaller?

use anyhow::{Context, Result, ensure};
use object::build::elf::Builder;
use object::{Architecture, Object};
use oci_spec::image::Arch;

/// Sections without which a program runs as before: symbols for debuggers and debug information.
const UNNEEDED: [&[u8]; 3] = [b".symtab", b".strtab", b".comment"];

/// Removes symbols and debug information. The standard `strip` knows only the host's processor; this knows all.
pub fn strip(binary: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(binary).context("cannot read the binary")?;
    for section in builder.sections.iter_mut() {
        let debug = section.name.starts_with(b".debug") && !section.is_alloc();
        section.delete = debug || UNNEEDED.iter().any(|name| section.name.as_slice() == *name);
    }
    for symbol in builder.symbols.iter_mut() {
        symbol.delete = true;
    }
    builder.set_section_sizes();
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the stripped binary")?;
    Ok(stripped)
}

/// Whether there is nothing to remove.
pub fn is_stripped(binary: &[u8]) -> Result<bool> {
    let file = object::File::parse(binary).context("it is no program for Linux")?;
    Ok(!file.has_debug_symbols() && file.section_by_name(".symtab").is_none())
}

/// Refuses a binary that would not run in an image without libraries, or not on the image's processor.
pub fn check(binary: &[u8], architecture: &Arch) -> Result<()> {
    let file = object::File::parse(binary).context("it is no program for Linux")?;
    let actual = arch(file.architecture()).context("it is for an unknown processor")?;
    ensure!(actual == *architecture, "it is for {actual}, the image for {architecture}");
    ensure!(file.section_by_name(".interp").is_none(), "it is linked dynamically; the image has no libraries");
    Ok(())
}

fn arch(architecture: Architecture) -> Option<Arch> {
    match architecture {
        Architecture::X86_64 => Some(Arch::Amd64),
        Architecture::Aarch64 => Some(Arch::ARM64),
        Architecture::Riscv64 => Some(Arch::RISCV64),
        Architecture::S390x => Some(Arch::s390x),
        Architecture::PowerPc64 => Some(Arch::PowerPC64le),
        _ => None,
    }
}

/// The processor of a Rust target, as Go spells it.
pub fn target_arch(triple: &str) -> Result<Arch> {
    let name = triple.split('-').next().unwrap_or_default();
    Ok(match name {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        "riscv64gc" | "riscv64a23" => Arch::RISCV64,
        "s390x" => Arch::s390x,
        "powerpc64le" => Arch::PowerPC64le,
        _ => anyhow::bail!(
            "no images are made for {triple}; x86_64-unknown-linux-gnu and aarch64-unknown-linux-gnu are examples that can be"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_loses_its_symbols_and_still_runs() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let stripped = strip(&program).unwrap();
        assert!(is_stripped(&stripped).unwrap());
        assert!(stripped.len() < program.len());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, stripped).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let output = std::process::Command::new(path).args(["--list", "no such test"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    #[test]
    fn a_program_for_another_processor_is_refused() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let here = target_arch(std::env::consts::ARCH).unwrap();
        check(&program, &here).unwrap();
        assert!(check(&program, &Arch::s390x).unwrap_err().to_string().contains("s390x"));
        assert!(check(b"#!/bin/sh", &here).is_err());
    }
}
