//! What klto does in a way of its own in kbuild's place: both ways are gone first, and what they made is held
//! against each other.

use klto_core::Digest;

use crate::session::{Session, lock};

/// What two ways were compared for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agreement {
    /// What decides how they work, as tools and scripts. That they agree is found out once in an output tree.
    pub rule: Digest,
    /// The same with all that they read. They agree on that once for all output trees of a store.
    pub case: Digest,
}

impl Session {
    /// Whether the two ways are known to agree.
    pub(crate) fn knows_agreement(&self, agreement: Agreement) -> anyhow::Result<bool> {
        if lock(&self.journal).knows_agreement(agreement.rule) {
            return Ok(true);
        }
        let is_known = self.engine.find_bytes(agreement.case).is_some();
        if is_known {
            lock(&self.journal).add_agreement(agreement.rule)?;
        }
        Ok(is_known)
    }

    /// They have agreed.
    pub(crate) fn add_agreement(&self, agreement: Agreement) -> anyhow::Result<()> {
        self.engine.keep_bytes(agreement.case, b"");
        lock(&self.journal).add_agreement(agreement.rule)?;
        Ok(())
    }
}
