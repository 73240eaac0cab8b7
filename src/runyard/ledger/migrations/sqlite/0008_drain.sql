-- lives beside: 0001
-- Since when an operator wants the machine to take nothing more, and to end once it holds nothing.
ALTER TABLE machines ADD COLUMN drain_asked_at REAL;
