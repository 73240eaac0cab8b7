-- lives beside: 0001
-- Where an attempt runs, and what it is busy with until it does. The release before writes neither and reads neither.
ALTER TABLE attempts ADD COLUMN placement text NOT NULL DEFAULT '{}', ADD COLUMN progress text;
