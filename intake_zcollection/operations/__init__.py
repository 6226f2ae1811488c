"""One file per verb, each in the order plan → read → compute → commit."""
