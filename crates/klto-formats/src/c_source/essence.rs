//! What a change of a source must leave as it is, so that it is one of comments and blanks alone.
//!
//! In: a source and its text. Out: parts of a digest, with the lines of tokens or without. It does not know who reads
//! the source.

use super::CSource;
use super::srcversion::of_srcversion;

impl CSource {
    /// What is left of the source without what every reader takes for a comment or a blank, as parts of a
    /// digest; `text` is what was read. Beside tokens that are the options that fixdep finds, in comments
    /// too, and what modpost adds to a module's `srcversion`.
    pub fn essence(&self, text: &[u8]) -> Vec<Vec<u8>> {
        self.essence_with(self.canonical.clone(), text)
    }

    /// [`Self::essence`] where lines of tokens do not count.
    pub fn essence_of_tokens(&self, text: &[u8]) -> Vec<Vec<u8>> {
        self.essence_with(self.tokens(), text)
    }

    fn essence_with(&self, tokens: Vec<u8>, text: &[u8]) -> Vec<Vec<u8>> {
        if self.asks.is_some() {
            return vec![text.to_vec()];
        }
        let mut options = Vec::new();
        for option in &self.options {
            options.extend(option);
            options.push(b'\n');
        }
        vec![options, of_srcversion(text), tokens]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_that_somebody_reads_count() {
        let essence = |text: &str| CSource::read(text.as_bytes()).essence(text.as_bytes());
        let first = essence("int a; /* one */\n");
        assert_eq!(first, essence("int a;  /* another, longer */\n"));
        for other in [
            "int b; /* one */\n",
            "int a; // one\n",
            "int a; /* CONFIG_A */\n",
            "int a;\n\n int b;",
            "int a; /* __DATE__ */\n",
        ] {
            assert_ne!(first, essence(other), "{other}");
        }
        let of_tokens = |text: &str| {
            let text = text.as_bytes();
            CSource::read(text).essence_of_tokens(text)
        };
        let first = of_tokens("int a;\nint b;\n");
        assert_eq!(first, of_tokens("int a;\n/* one\n more */\n\nint b;\n"));
        for other in [
            "int a; int b;\n",
            "int a;\n// one\nint b;\n",
            "int a;\n/* CONFIG_A */\nint b;\n",
            "int a;\n/* __TIME__ */\nint b;\n",
        ] {
            assert_ne!(first, of_tokens(other), "{other}");
        }
        // A quote as a character begins a string for modpost.
        assert_ne!(
            essence("f('\"'); /* a */ g('\"');"),
            essence("f('\"'); /* b */ g('\"');")
        );
    }
}
