//! Value layers: contexts that have nothing of their own but a value.
#![expect(unsafe_code, reason = "a layer of any type is a head, and knows how to free itself")]

use std::panic::Location;
use std::ptr::NonNull;

use crate::key::Key;
use crate::observe::ContextId;
use crate::state::State;
use crate::sync::AtomicU32;
use crate::value::Typed;

use super::node::{LAYERS, Layer};
use super::{Head, Ref};

impl Ref {
    /// A value layer: shares the scope of its parent.
    pub(crate) fn layer<T: Send + Sync + 'static>(
        &self,
        key: &'static Key<T>,
        value: T,
        place: &'static Location<'static>,
    ) -> Ref {
        #[repr(C)]
        struct Valued<T: 'static> {
            layer: Layer,
            value: Typed<T>,
        }
        unsafe fn free<T: 'static>(head: NonNull<Head>) {
            // SAFETY: stored in the head of a `Valued<T>` that came from a box.
            drop(unsafe { Box::from_raw(head.cast::<Valued<T>>().as_ptr()) });
        }

        let mut value = Typed::new(key, value);
        value.link(self.head().values);
        let head = Head {
            strong: AtomicU32::new(1),
            memory: AtomicU32::new(LAYERS),
            state: State::elsewhere(),
            parent: Some(self.clone().into_raw()),
            values: None,
            id: ContextId::next(self.head().id),
            place,
        };
        let layer = Layer { head, scope: self.head().scope_ptr(), free: free::<T> };
        let layer: *mut Valued<T> = Box::into_raw(Box::new(Valued { layer, value }));
        let _ = layer.expose_provenance(); // the scope is found from a reference to the head
        // SAFETY: made here, so a place in the allocation.
        let first = unsafe { &raw mut (*layer).value };
        // SAFETY: nobody else's yet; the chain's first link is the layer's own.
        unsafe { (*layer).layer.head.values = NonNull::new(first.cast()) };
        // SAFETY: not null; a layer begins with its head.
        let layer = Ref(unsafe { NonNull::new_unchecked(layer.cast::<Head>()) });
        layer.announce(self, false);
        layer
    }
}
