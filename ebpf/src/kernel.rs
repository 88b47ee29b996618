//! The kernel's own structures, by way of two kernel functions (Linux 6.2).
//!
//! Calls to them stand here under placeholder numbers; the loader puts in their numbers in the running
//! kernel, or takes the calls out when the kernel cannot do this.

use core::{ffi::c_void, mem::transmute};

use aya_ebpf::programs::TcContext;
use podgate_common::kernel_function;

/// `struct sk_buff` of a packet.
#[inline(always)]
pub(crate) fn sk_buff(context: &TcContext) -> *const u8 {
    // SAFETY: the kernel's verifier checks the call.
    unsafe {
        let cast_to_kern_ctx: unsafe extern "C" fn(*mut c_void) -> *const u8 =
            transmute(kernel_function::CAST_TO_KERN_CTX);
        cast_to_kern_ctx(context.skb.skb.cast())
    }
}

/// What lies at an address, taken for a structure of this type; loads from memory that is gone give zeros.
#[inline(always)]
pub(crate) fn structure(address: usize, of_type: u32) -> *const u8 {
    // SAFETY: the kernel's verifier checks the call.
    unsafe {
        let rdonly_cast: unsafe extern "C" fn(usize, u32) -> *const u8 =
            transmute(kernel_function::RDONLY_CAST);
        rdonly_cast(address, of_type)
    }
}
