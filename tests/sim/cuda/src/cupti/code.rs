//! Results (`CUptiResult`).

use std::ffi::CStr;

pub(crate) const SUCCESS: u32 = 0;
pub(crate) const INVALID_PARAMETER: u32 = 1;
pub(crate) const MAX_LIMIT_REACHED: u32 = 12;
pub(crate) const NOT_INITIALIZED: u32 = 15;
pub(crate) const INVALID_KIND: u32 = 21;
pub(crate) const MULTIPLE_SUBSCRIBERS: u32 = 39;

const NAMES: [(u32, &CStr); 12] = [
    (SUCCESS, c"CUPTI_SUCCESS"),
    (INVALID_PARAMETER, c"CUPTI_ERROR_INVALID_PARAMETER"),
    (MAX_LIMIT_REACHED, c"CUPTI_ERROR_MAX_LIMIT_REACHED"),
    (14, c"CUPTI_ERROR_NOT_COMPATIBLE"),
    (NOT_INITIALIZED, c"CUPTI_ERROR_NOT_INITIALIZED"),
    (INVALID_KIND, c"CUPTI_ERROR_INVALID_KIND"),
    (26, c"CUPTI_ERROR_HARDWARE_BUSY"),
    (27, c"CUPTI_ERROR_NOT_SUPPORTED"),
    (35, c"CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"),
    (
        MULTIPLE_SUBSCRIBERS,
        c"CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED",
    ),
    (999, c"CUPTI_ERROR_UNKNOWN"),
    (8, c"CUPTI_ERROR_INVALID_OPERATION"),
];

pub(crate) fn name(code: u32) -> Option<&'static CStr> {
    NAMES
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, name)| *name)
}
