//! What the linked libraries say about themselves.

use std::ffi::{CStr, c_char, c_void};

/// MLX's version.
pub fn mlx_version() -> Option<String> {
    // SAFETY: mlx-c makes the string and frees it; it is copied in between.
    unsafe {
        let mut text = mlx_sys::mlx_string_new();
        let status = mlx_sys::mlx_version(&raw mut text);
        let version = (status == 0).then(|| copied(mlx_sys::mlx_string_data(text))).flatten();
        mlx_sys::mlx_string_free(text);
        version
    }
}

/// A property of MLX's first GPU or of its CPU, such as `device_name`.
pub fn device_property(gpu: bool, key: &CStr) -> Option<String> {
    let kind = if gpu { mlx_sys::mlx_device_type__MLX_GPU } else { mlx_sys::mlx_device_type__MLX_CPU };
    // SAFETY: every object is made and freed here; the value points into `info` and is copied before
    // that is freed. A key is asked for only after it was found, so no call fails.
    unsafe {
        let device = mlx_sys::mlx_device_new_type(kind, 0);
        let mut info = mlx_sys::mlx_device_info_new();
        let mut value = None;
        if mlx_sys::mlx_device_info_get(&raw mut info, device) == 0 {
            let (mut exists, mut is_text) = (false, false);
            let found = mlx_sys::mlx_device_info_has_key(&raw mut exists, info, key.as_ptr()) == 0
                && exists
                && mlx_sys::mlx_device_info_is_string(&raw mut is_text, info, key.as_ptr()) == 0
                && is_text;
            let mut text: *const c_char = std::ptr::null();
            if found && mlx_sys::mlx_device_info_get_string(&raw mut text, info, key.as_ptr()) == 0 {
                value = copied(text);
            }
        }
        mlx_sys::mlx_device_info_free(info);
        mlx_sys::mlx_device_free(device);
        value
    }
}

/// The file from which the process takes `cblas_sgemm`: the BLAS that MLX's matrix products call. Loads it, if no
/// product has.
pub fn blas_file() -> Option<String> {
    let function = of_blas(c"cblas_sgemm")?;
    // SAFETY: `dladdr` only looks the address up; on success the name it points at lives as long as
    // the library is loaded, and is copied at once.
    unsafe {
        let mut found: libc::Dl_info = std::mem::zeroed();
        (libc::dladdr(function, &raw mut found) != 0).then(|| copied(found.dli_fname)).flatten()
    }
}

/// What OpenBLAS says about its build, if it is loaded: version, kernel, threads.
pub fn openblas_config() -> Option<String> {
    let function = of_blas(c"openblas_get_config")?;
    // SAFETY: OpenBLAS declares `char *openblas_get_config(void)` and returns a string that is not to be freed.
    unsafe {
        let config: unsafe extern "C" fn() -> *const c_char = std::mem::transmute(function);
        copied(config())
    }
}

/// A function of the BLAS.
fn of_blas(name: &CStr) -> Option<*const c_void> {
    // SAFETY: a look-up by name.
    #[cfg(target_os = "linux")]
    let found = unsafe { mlx_cache_blas(name.as_ptr()) };
    // SAFETY: as above, the way the dynamic linker does it for MLX.
    #[cfg(not(target_os = "linux"))]
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found.cast_const())
}

#[cfg(target_os = "linux")]
unsafe extern "C" {
    fn mlx_cache_blas(name: *const c_char) -> *mut c_void;
}

/// # Safety
/// `text` is null or a string that ends with a zero byte.
unsafe fn copied(text: *const c_char) -> Option<String> {
    // SAFETY: passed on to the caller.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned())
}
