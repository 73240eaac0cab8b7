-- lives beside: 0001
-- Where an attempt runs, and what it is busy with until it does. The release before writes neither and reads neither.
ALTER TABLE attempts ADD COLUMN placement TEXT NOT NULL DEFAULT '{}';
ALTER TABLE attempts ADD COLUMN progress TEXT;
