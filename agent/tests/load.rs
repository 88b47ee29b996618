use podgate::kernel::{Kernel, KernelOptions};
#[test]
fn loads() {
    let r = Kernel::load(None, KernelOptions { flows: 1024, recheck: false });
    if let Err(e) = r {
        panic!("{e:#}");
    }
}
