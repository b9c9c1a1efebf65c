//! Root directories for programs that start a command in one of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::FLOOR;

/// A root directory whose `/true` does nothing, and the same with the floor program as `/floor`.
///
/// They are apart since some peers copy a root directory for every start.
pub(crate) fn make(small: &str, with_floor: &str) {
    for root in [small, with_floor] {
        for directory in ["usr", "etc", "proc", "sys", "dev", "run", "tmp"] {
            fs::create_dir_all(Path::new(root).join(directory)).expect("a root directory");
        }
        put(Path::new(root).join("true").as_path(), &program_that_succeeds());
    }
    put(Path::new(with_floor).join("floor").as_path(), &fs::read(FLOOR).expect("the floor program"));
}

fn put(path: &Path, program: &[u8]) {
    fs::write(path, program).expect("a program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("an executable program");
}

/// exit(0) and nothing else, as an ELF file with one segment (elf(5)): needs no library, no interpreter, no compiler.
fn program_that_succeeds() -> Vec<u8> {
    const EM_X86_64: u64 = 62;
    const EM_AARCH64: u64 = 183;
    const HEADERS: u64 = 64 + 56;
    const BASE: u64 = 0x40_0000;
    let (machine, code): (u64, &[u8]) = if cfg!(target_arch = "aarch64") {
        // mov x0, #0; mov x8, #93; svc #0
        (EM_AARCH64, &[0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4])
    } else {
        // xor edi, edi; mov eax, 60; syscall
        (EM_X86_64, &[0x31, 0xff, 0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05])
    };
    let size = HEADERS + u64::try_from(code.len()).expect("a few bytes");
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // Elf64_Ehdr behind its first field: an executable file (2), its entry point, and where its one segment is described.
    file.extend([(2, 2), (machine, 2), (1, 4), (BASE + HEADERS, 8), (64, 8), (0, 8)].map(field).concat());
    file.extend([(0, 4), (64, 2), (56, 2), (1, 2), (0, 2), (0, 2), (0, 2)].map(field).concat());
    // Elf64_Phdr: the whole file (1, PT_LOAD), readable and executable (5).
    file.extend([(1, 4), (5, 4), (0, 8), (BASE, 8), (BASE, 8), (size, 8), (size, 8)].map(field).concat());
    file.extend(field((0x1_0000, 8)));
    file.extend(code);
    file
}

/// A number in so many bytes.
fn field((value, size): (u64, usize)) -> Vec<u8> {
    value.to_le_bytes()[..size].to_vec()
}
