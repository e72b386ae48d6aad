//! Kernel names as people write them.

use std::borrow::Cow;
use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, Symbol};

/// A demangled name is not longer than this: a few mangled bytes can stand for very many.
const LONGEST: usize = 4_096;

/// The C++ name behind a mangled one, as the Itanium ABI has them; any other name stays as it is.
pub(crate) fn demangled(raw: &str) -> Cow<'_, str> {
    // What cannot be a mangled name is not looked into; a type such as "i" would be found in plain words.
    if !raw.starts_with("_Z") {
        return Cow::Borrowed(raw);
    }
    let Ok(symbol) = Symbol::new(raw) else {
        return Cow::Borrowed(raw);
    };
    let mut name = Bounded(String::new());
    match symbol.structured_demangle(&mut name, &DemangleOptions::new().recursion_limit(64)) {
        Ok(()) => Cow::Owned(name.0),
        Err(_) => Cow::Borrowed(raw),
    }
}

/// A text that refuses to grow over [`LONGEST`].
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mangled_names_are_read_and_others_stay() {
        for (raw, name) in [
            ("_Z3fooPf", "foo(float*)"),
            (
                "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEEEEvT0_i",
                "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float> >(at::native::FillFunctor<float>, int)",
            ),
            (
                "ampere_fp16_s16816gemm_fp16_128x128_ldg8_f2f",
                "ampere_fp16_s16816gemm_fp16_128x128_ldg8_f2f",
            ),
            ("triton_poi_fused_add_0", "triton_poi_fused_add_0"),
            ("_Z", "_Z"),
            ("_Znot a name", "_Znot a name"),
            ("", ""),
        ] {
            assert_eq!(demangled(raw), name);
        }
    }

    #[test]
    fn a_name_that_would_grow_without_end_stays_as_it_is() {
        // Each argument stands for twice the one before it.
        let mut raw = "_Z1fSt4pairIiiE".to_owned();
        for number in 0..40_u32 {
            let last = std::char::from_digit(number % 36, 36)
                .unwrap_or('0')
                .to_ascii_uppercase();
            let _written: fmt::Result = write!(raw, "St4pairIS{last}_S{last}_E");
        }
        assert!(demangled(&raw).len() <= LONGEST);
        let deep = format!("_Z1f{}i", "P".repeat(4_000));
        assert!(demangled(&deep).len() <= LONGEST);
    }

    proptest! {
        #[test]
        fn no_name_is_too_strange(raw in "_Z[0-9A-Za-z_]{0,200}") {
            let name = demangled(&raw);
            prop_assert!(name.len() <= LONGEST);
        }
    }
}
