//! libibverbs and librdmacm, opened when first asked for: a program starts and works over TCP where they are missing.
//!
//! Types, and the functions that verbs.h has inline, are rdma-sys's; the exported ones are looked up by name, each with the
//! type that rdma-sys declares (checked when this is compiled).

use std::sync::OnceLock;

use rdma_sys::{
    ibv_async_event, ibv_comp_channel, ibv_context, ibv_cq, ibv_device, ibv_device_attr, ibv_mr, ibv_pd,
    ibv_qp_init_attr, ibv_srq, ibv_srq_init_attr, rdma_cm_event, rdma_cm_id, rdma_conn_param, rdma_event_channel,
    rdma_port_space,
};

use std::os::raw::{c_char, c_int, c_uint, c_void};

macro_rules! functions {
    ($(#[$meta:meta])* $name:ident, $file:literal: $($function:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        $(#[$meta])*
        pub struct $name {
            $(pub $function: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        // Only checked, never called: nothing is linked.
        $(const _: unsafe extern "C" fn($($argument),*) $(-> $result)? = rdma_sys::$function;)*

        impl $name {
            fn open() -> Result<$name, String> {
                // SAFETY: these libraries do nothing on load but set up themselves.
                let library = unsafe { libloading::Library::new($file) }.map_err(|e| e.to_string())?;
                let library = Box::leak(Box::new(library));
                Ok($name {
                    $($function: {
                        // SAFETY: the type is the one of the library's header, by way of rdma-sys.
                        let found = unsafe { library.get(concat!(stringify!($function), "\0").as_bytes()) };
                        *found.map_err(|e| e.to_string())?
                    },)*
                })
            }
        }
    };
}

functions! {
    /// libibverbs.
    Ibverbs, "libibverbs.so.1":
    ibv_alloc_pd(*mut ibv_context) -> *mut ibv_pd;
    ibv_dealloc_pd(*mut ibv_pd) -> c_int;
    ibv_reg_mr(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
    ibv_dereg_mr(*mut ibv_mr) -> c_int;
    ibv_create_comp_channel(*mut ibv_context) -> *mut ibv_comp_channel;
    ibv_destroy_comp_channel(*mut ibv_comp_channel) -> c_int;
    ibv_create_cq(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
    ibv_destroy_cq(*mut ibv_cq) -> c_int;
    ibv_get_cq_event(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
    ibv_ack_cq_events(*mut ibv_cq, c_uint);
    ibv_create_srq(*mut ibv_pd, *mut ibv_srq_init_attr) -> *mut ibv_srq;
    ibv_destroy_srq(*mut ibv_srq) -> c_int;
    ibv_get_async_event(*mut ibv_context, *mut ibv_async_event) -> c_int;
    ibv_ack_async_event(*mut ibv_async_event);
    ibv_query_device(*mut ibv_context, *mut ibv_device_attr) -> c_int;
    ibv_get_device_name(*mut ibv_device) -> *const c_char;
}

functions! {
    /// librdmacm.
    Rdmacm, "librdmacm.so.1":
    rdma_create_event_channel() -> *mut rdma_event_channel;
    rdma_destroy_event_channel(*mut rdma_event_channel);
    rdma_create_id(*mut rdma_event_channel, *mut *mut rdma_cm_id, *mut c_void, rdma_port_space::Type) -> c_int;
    rdma_destroy_id(*mut rdma_cm_id) -> c_int;
    rdma_bind_addr(*mut rdma_cm_id, *mut libc::sockaddr) -> c_int;
    rdma_resolve_addr(*mut rdma_cm_id, *mut libc::sockaddr, *mut libc::sockaddr, c_int) -> c_int;
    rdma_resolve_route(*mut rdma_cm_id, c_int) -> c_int;
    rdma_create_qp(*mut rdma_cm_id, *mut ibv_pd, *mut ibv_qp_init_attr) -> c_int;
    rdma_destroy_qp(*mut rdma_cm_id);
    rdma_connect(*mut rdma_cm_id, *mut rdma_conn_param) -> c_int;
    rdma_listen(*mut rdma_cm_id, c_int) -> c_int;
    rdma_accept(*mut rdma_cm_id, *mut rdma_conn_param) -> c_int;
    rdma_reject(*mut rdma_cm_id, *const c_void, u8) -> c_int;
    rdma_disconnect(*mut rdma_cm_id) -> c_int;
    rdma_get_cm_event(*mut rdma_event_channel, *mut *mut rdma_cm_event) -> c_int;
    rdma_ack_cm_event(*mut rdma_cm_event) -> c_int;
    rdma_get_devices(*mut c_int) -> *mut *mut ibv_context;
    rdma_free_devices(*mut *mut ibv_context);
}

/// Both libraries.
pub struct Libraries {
    pub verbs: Ibverbs,
    pub cm: Rdmacm,
}

static LIBRARIES: OnceLock<Result<Libraries, String>> = OnceLock::new();

/// The libraries, or why they cannot be used.
///
/// # Errors
/// Text of the dynamic linker.
pub fn libraries() -> Result<&'static Libraries, String> {
    LIBRARIES
        .get_or_init(|| Ok(Libraries { verbs: Ibverbs::open()?, cm: Rdmacm::open()? }))
        .as_ref()
        .map_err(Clone::clone)
}
