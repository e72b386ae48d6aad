//! The fault `missing-symbol`: as in another release, looking a function up fails. The loader compares a symbol's name after
//! its hash, so it is enough to spoil the name in the loaded library's table of names.
#![expect(unsafe_code, reason = "changes a table of the loaded library")]

use std::ffi::c_void;

use crate::fault::Faults;
use crate::settings;

/// Entries of the dynamic section (elf(5)): the end, the table of names and its size.
const DT_NULL: u64 = 0;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;

/// Runs when the loader has loaded this library, before anybody can look a function up.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

extern "C" fn at_load() {
    hide(&settings::value(settings::FAULTS).unwrap_or_default());
}

/// Hides the functions that a list of faults names.
pub(crate) fn hide(list: &str) {
    // A list that is wrong is complained of where the other faults are read.
    let Ok(faults) = Faults::parse(list) else { return };
    for name in faults.missing {
        let mut wanted = vec![0];
        wanted.extend_from_slice(name.as_bytes());
        wanted.push(0);
        let Some(names) = names() else { return };
        let found = names.windows(wanted.len()).position(|window| window == wanted);
        if let Some(place) = found {
            spoil(names[place + 1..].as_ptr());
        }
    }
}

/// The names of this library's symbols.
fn names() -> Option<&'static [u8]> {
    let mut own = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: an address of this library, and a writable place.
    let found = unsafe { libc::dladdr(hide as *const c_void, &raw mut own) };
    let base = own.dli_fbase.cast::<u8>();
    if found == 0 || base.is_null() {
        return None;
    }
    // SAFETY: a loaded library begins with its ELF header, and that lies in memory.
    let header = unsafe { base.cast::<libc::Elf64_Ehdr>().read_unaligned() };
    let mut dynamic = None;
    for index in 0..usize::from(header.e_phnum) {
        let at = usize::try_from(header.e_phoff).ok()? + index * size_of::<libc::Elf64_Phdr>();
        // SAFETY: the program headers lie in memory behind the header, which says how many there are.
        let segment = unsafe { base.add(at).cast::<libc::Elf64_Phdr>().read_unaligned() };
        if segment.p_type == libc::PT_DYNAMIC {
            dynamic = usize::try_from(segment.p_vaddr).ok();
        }
    }
    let (mut table, mut bytes) = (None, None);
    let mut at = dynamic?;
    loop {
        // SAFETY: the dynamic section is a list of pairs that ends with a tag of 0.
        let [tag, value] = unsafe { base.add(at).cast::<[u64; 2]>().read_unaligned() };
        match tag {
            DT_NULL => break,
            DT_STRTAB => table = usize::try_from(value).ok(),
            DT_STRSZ => bytes = usize::try_from(value).ok(),
            _ => {}
        }
        at += size_of::<[u64; 2]>();
    }
    // The loader has made an address of the offset, on most architectures.
    let table = table?;
    let offset = table.checked_sub(base.addr()).unwrap_or(table);
    // SAFETY: the dynamic section says where the table lies and how long it is.
    Some(unsafe { std::slice::from_raw_parts(base.add(offset), bytes?) })
}

/// Overwrites one byte of a page that is for reading only.
fn spoil(byte: *const u8) {
    let page = 4096;
    let start = byte.wrapping_sub(byte.addr() % page).cast_mut().cast::<c_void>();
    // SAFETY: the page is this library's own, and nobody relies on it being read-only.
    if unsafe { libc::mprotect(start, page, libc::PROT_READ | libc::PROT_WRITE) } == 0 {
        // SAFETY: writable now; others that read the table at this moment see the old or the new name.
        unsafe { byte.cast_mut().write_volatile(b'~') };
        // SAFETY: as above.
        unsafe { libc::mprotect(start, page, libc::PROT_READ) };
    }
}
