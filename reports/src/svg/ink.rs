//! Every colour of the picture, once for light and once for dark.
//!
//! An ink becomes a CSS class over a custom property, so that a viewer can switch, and a plain attribute, because some
//! viewers know neither. plotters hands colours to a backend as RGB only, so the light values are also the inks' names
//! there, and no two inks may share one.

use std::fmt::Write as _;

use plotters::style::RGBColor;

/// Which colours a picture has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Theme {
    /// Follow the viewer's preference, light where it has none.
    #[default]
    Auto,
    /// Always light.
    Light,
    /// Always dark.
    Dark,
}

impl std::str::FromStr for Theme {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "light" => Ok(Self::Light),
            "dark" => Ok(Self::Dark),
            other => Err(format!("'{other}' is none of auto, light, dark")),
        }
    }
}

macro_rules! inks {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $light:literal, $dark:literal;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Ink { $($(#[$doc])* $name,)+ }

        impl Ink {
            pub(super) const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its name in class names and custom properties.
            pub(super) const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            const fn light(self) -> u32 {
                match self { $(Self::$name => $light,)+ }
            }

            const fn dark(self) -> u32 {
                match self { $(Self::$name => $dark,)+ }
            }
        }
    };
}

inks! {
    Background = "bg", 0xffffff, 0x11161c;
    Text = "tx", 0x1b2430, 0xe6edf3;
    Dim = "dm", 0x57606a, 0x9aa7b4;
    Grid = "gd", 0xe3e7ec, 0x262e38;
    Axis = "ax", 0x8b949e, 0x6a7580;
    /// Around everything that is in use.
    Edge = "ed", 0x333d48, 0xd0d7de;
    Capacity = "cp", 0xb42318, 0xff7a70;
    Usable = "us", 0xc63d2f, 0xff9a8f;
    Rule = "ru", 0x5b21b6, 0xc9a8ff;
    Unattributed = "ua", 0xc9d1d9, 0x4a5460;
    UnattributedDots = "ud", 0x6e7781, 0xaab4bf;
    OtherProcesses = "op", 0x707b87, 0x83909d;
    /// Owners claim more than the device has in use.
    Over = "ov", 0xa40e26, 0xffa198;
    Unknown = "uk", 0x9ea7b1, 0x5a6570;
    Busy = "bu", 0x4b6b8d, 0x5d84ad;
    // What GPU time goes to; other hues than those of owners, which stand in the same picture.
    Attention = "fa", 0x7048c8, 0xa98bf0;
    Gemm = "fg", 0x0b7285, 0x35a8bd;
    Communication = "fc", 0xc2255c, 0xf0709c;
    Copy = "fy", 0x946200, 0xdfae45;
    Graph = "fr", 0x3f5fc0, 0x7f9df5;
    OtherKernels = "fo", 0x7d8590, 0x8d97a3;
    /// Memory that an allocator holds free and cannot give back.
    Stuck = "sk", 0xa61e69, 0xf783ac;
    /// Memory that an allocator holds and does not use.
    Slack = "sl", 0xc77dab, 0xa05080;
    Peak = "pk", 0x111820, 0xfafbfc;
    Good = "ok", 0x1a7f37, 0x56d364;
    Warn = "wn", 0x955700, 0xe8b339;
    Bad = "bd", 0xc2183c, 0xff858f;
    Neutral = "nt", 0x3b4654, 0xb6c2cf;
    // The hues of Okabe and Ito, darkened or lightened until they stand out 3:1 from the background.
    Owner0 = "o0", 0x0072b2, 0x2f86c9;
    Owner1 = "o1", 0xd55e00, 0xd9661f;
    Owner2 = "o2", 0x008665, 0x1a9c7a;
    Owner3 = "o3", 0xb5508c, 0xbd679c;
    Owner4 = "o4", 0xb07400, 0xc4861a;
    Owner5 = "o5", 0x3a8abb, 0x4a9fd4;
    Owner6 = "o6", 0x867c00, 0x9c9419;
}

/// The inks that owners' names are mapped to.
pub(super) const OWNERS: [Ink; 7] = [
    Ink::Owner0,
    Ink::Owner1,
    Ink::Owner2,
    Ink::Owner3,
    Ink::Owner4,
    Ink::Owner5,
    Ink::Owner6,
];

impl Ink {
    /// The colour that stands for it inside plotters.
    pub(super) const fn rgb(self) -> RGBColor {
        let [_, red, green, blue] = self.light().to_be_bytes();
        RGBColor(red, green, blue)
    }

    /// The ink that a colour stands for.
    pub(super) fn of_rgb((red, green, blue): (u8, u8, u8)) -> Option<Self> {
        let light = u32::from_be_bytes([0, red, green, blue]);
        Self::ALL.iter().copied().find(|ink| ink.light() == light)
    }

    /// What viewers without style sheets show.
    pub(super) fn fallback(self, theme: Theme) -> String {
        match theme {
            Theme::Dark => hex(self.dark()),
            Theme::Auto | Theme::Light => hex(self.light()),
        }
    }
}

fn hex(rgb: u32) -> String {
    let [_, red, green, blue] = rgb.to_be_bytes();
    let short = |byte: u8| byte >> 4 == byte & 15;
    if short(red) && short(green) && short(blue) {
        format!("#{:x}{:x}{:x}", red & 15, green & 15, blue & 15)
    } else {
        format!("#{rgb:06x}")
    }
}

/// The style sheet; every rule is confined to the picture, because it may stand inside a page.
pub(super) fn style_sheet(theme: Theme) -> String {
    let list = |color: fn(Ink) -> u32| {
        Ink::ALL.iter().fold(String::new(), |mut out, ink| {
            out.push_str("--");
            out.push_str(ink.code());
            out.push(':');
            out.push_str(&hex(color(*ink)));
            out.push(';');
            out
        })
    };
    let (light, dark) = (list(Ink::light), list(Ink::dark));
    let mut css = match theme {
        Theme::Auto => format!(
            ".plimsoll{{color-scheme:light dark;{light}}}\n\
             @media (prefers-color-scheme:dark){{.plimsoll{{{dark}}}}}\n\
             @media print{{.plimsoll{{{light}}}}}\n"
        ),
        Theme::Light => format!(".plimsoll{{color-scheme:light;{light}}}\n"),
        Theme::Dark => format!(".plimsoll{{color-scheme:dark;{dark}}}\n"),
    };
    for ink in Ink::ALL {
        let code = ink.code();
        // A write into a string cannot fail.
        let _infallible = writeln!(
            css,
            ".plimsoll .f-{code}{{fill:var(--{code})}}.plimsoll .s-{code}{{stroke:var(--{code})}}"
        );
    }
    css.push_str(".plimsoll .halo{paint-order:stroke;stroke:var(--bg)}\n");
    css
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance and contrast as in WCAG 2.2.
    fn contrast(a: u32, b: u32) -> f64 {
        let luminance = |rgb: u32| {
            let [_, r, g, b] = rgb.to_be_bytes().map(|byte| {
                let c = f64::from(byte) / 255.0;
                if c <= 0.04045 {
                    c / 12.92
                } else {
                    ((c + 0.055) / 1.055).powf(2.4)
                }
            });
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn no_two_inks_are_confused() {
        for (index, ink) in Ink::ALL.iter().enumerate() {
            let RGBColor(r, g, b) = ink.rgb();
            assert_eq!(Ink::of_rgb((r, g, b)), Some(*ink));
            assert!(Ink::ALL[..index].iter().all(|other| other.code() != ink.code()));
        }
        assert_eq!(Ink::of_rgb((1, 2, 3)), None);
    }

    #[test]
    fn everything_that_carries_meaning_stands_out_from_the_background() {
        let quiet = [Ink::Background, Ink::Grid, Ink::Unattributed, Ink::Unknown];
        for ink in Ink::ALL.iter().filter(|ink| !quiet.contains(ink)) {
            let least = if matches!(ink, Ink::Text | Ink::Dim) {
                4.5
            } else {
                3.0
            };
            let light = contrast(ink.light(), Ink::Background.light());
            let dark = contrast(ink.dark(), Ink::Background.dark());
            assert!(light >= least, "{ink:?} light {light:.2}");
            assert!(dark >= least, "{ink:?} dark {dark:.2}");
        }
    }

    #[test]
    fn themes_differ_only_where_they_should() {
        assert!(style_sheet(Theme::Auto).contains("prefers-color-scheme:dark"));
        assert!(!style_sheet(Theme::Dark).contains("prefers-color-scheme"));
        assert_eq!(Ink::Background.fallback(Theme::Auto), "#fff");
        assert_eq!(Ink::Background.fallback(Theme::Dark), "#11161c");
        assert_eq!("dark".parse(), Ok(Theme::Dark));
        assert!("blue".parse::<Theme>().is_err());
    }
}
