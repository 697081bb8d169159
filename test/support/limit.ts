/**
 * Loaded before a test file (--import): a file whose process has not ended after a while says what keeps it and fails. Each
 * test has its own limit, but one that was given up can leave a loop, a socket or a child behind, and then the whole run
 * would wait for ever. Minutes in TEST_FILE_LIMIT.
 */
const minutes = Number(process.env.TEST_FILE_LIMIT);

// The runner itself loads this too.
if (process.env.NODE_TEST_CONTEXT !== undefined && minutes > 0)
  setTimeout(() => {
    const held = [...new Set(process.getActiveResourcesInfo())].join(', ');
    console.error(`${process.argv[1]} has not ended after ${minutes} minutes. It is held by: ${held}`);
    process.exit(1);
  }, minutes * 60_000).unref();
