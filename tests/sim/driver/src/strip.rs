//! A copy of the library without some of its functions, as an older driver would have it.

use std::io::{self, ErrorKind};
use std::path::Path;

/// Copies `library` to `into`, where looking up any of `symbols` then fails. Their entries stay and get another name:
/// the loader finds an entry by the name's hash and then compares the name, so the old name is no longer found and
/// every other one is.
///
/// # Errors
/// When a file cannot be read or written, `library` is not a 64-bit little-endian ELF library with section headers, or
/// it does not export one of the symbols.
pub fn strip_symbols(library: &Path, symbols: &[&str], into: &Path) -> io::Result<()> {
    let mut bytes = std::fs::read(library)?;
    let offsets = symbols.iter().map(|symbol| {
        let found =
            name_offsets(&bytes).ok_or_else(|| bad(library, "is not a 64-bit ELF library".to_owned()))?;
        let mut found = found.into_iter().filter(|&at| {
            let name = bytes.get(at..at + symbol.len() + 1);
            name.is_some_and(|name| name.strip_suffix(&[0]) == Some(symbol.as_bytes()))
        });
        found
            .next()
            .ok_or_else(|| bad(library, format!("does not export {symbol}")))
    });
    let offsets: Vec<usize> = offsets.collect::<io::Result<_>>()?;
    for at in offsets {
        if let Some(first) = bytes.get_mut(at) {
            *first = b'~';
        }
    }
    std::fs::write(into, bytes)
}

fn bad(library: &Path, what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{} {what}", library.display()))
}

/// Type of the section with the symbols that the loader sees (elf(5), SHT_DYNSYM).
const DYNAMIC_SYMBOLS: u32 = 11;
const SECTION_SIZE: usize = 64;
const SYMBOL_SIZE: usize = 24;

/// Offsets in the file of the names of all dynamic symbols.
fn name_offsets(file: &[u8]) -> Option<Vec<usize>> {
    // Class 2 is 64 bits, data 1 is little-endian.
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let sections_at = word(file, 0x28)?;
    let count = usize::from(u16::from_le_bytes(*file.get(0x3C..)?.first_chunk()?));
    let section = |index: usize| {
        file.get(sections_at.checked_add(index.checked_mul(SECTION_SIZE)?)?..)?
            .get(..SECTION_SIZE)
    };
    let symbols = (0..count)
        .filter_map(section)
        .find(|header| half(header, 4) == Some(DYNAMIC_SYMBOLS))?;
    let names = section(half(symbols, 0x28)? as usize)?;
    let names_at = word(names, 0x18)?;
    let table = file.get(word(symbols, 0x18)?..)?.get(..word(symbols, 0x20)?)?;
    table
        .chunks_exact(SYMBOL_SIZE)
        .map(|symbol| names_at.checked_add(half(symbol, 0)? as usize))
        .collect()
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}
