//! What klto does in a way of its own in kbuild's place: both ways are gone first, and what they made is held
//! against each other.

use klto_core::Digest;

use crate::session::{Session, lock};

/// Whether two ways agree.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Agreement {
    Known,
    /// They are still to be compared.
    Unknown {
        /// What decides how they work, as tools and scripts. That they agree is found out once in an output
        /// tree.
        rule: Digest,
        /// The same with all that they read. They agree on that once for all output trees of a store.
        case: Digest,
    },
}

impl Agreement {
    pub(crate) fn is_known(self) -> bool {
        matches!(self, Self::Known)
    }
}

impl Session {
    /// What is known of the two ways that `rule` decides. `case` reads all that they read: it is asked only
    /// where this output tree does not know.
    pub(crate) fn agreement(
        &self,
        rule: Digest,
        case: impl FnOnce() -> anyhow::Result<Digest>,
    ) -> anyhow::Result<Agreement> {
        if lock(&self.journal).knows_agreement(rule) {
            return Ok(Agreement::Known);
        }
        let case = case()?;
        if self.engine.find_bytes(case).is_none() {
            return Ok(Agreement::Unknown { rule, case });
        }
        lock(&self.journal).add_agreement(rule)?;
        Ok(Agreement::Known)
    }

    /// They have agreed.
    pub(crate) fn add_agreement(&self, agreement: Agreement) -> anyhow::Result<()> {
        if let Agreement::Unknown { rule, case } = agreement {
            self.engine.keep_bytes(case, b"");
            lock(&self.journal).add_agreement(rule)?;
        }
        Ok(())
    }
}
