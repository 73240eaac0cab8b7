-- lives beside: 0001
-- Sessions of the operator pages and one-time links are credentials beside the API's tokens; each ends with its parent.
ALTER TABLE tokens ADD COLUMN kind TEXT NOT NULL DEFAULT 'token';
ALTER TABLE tokens ADD COLUMN parent TEXT;
CREATE INDEX tokens_by_parent ON tokens (parent) WHERE parent IS NOT NULL;
CREATE INDEX tokens_expired ON tokens (expires_at) WHERE expires_at IS NOT NULL;
