/** The version of the program, as in package.json. */
export const version = '0.1.0';

/** Standards that are not final, and the state of each that is implemented (SPIFFE stability policy §2.3). */
export const incubating = {
  spiffe_broker_api: 'spiffe/spiffe 665a28f (2026-07-01)',
  spiffe_broker_endpoint: 'spiffe/spiffe 665a28f (2026-07-01)',
  wit_svid: 'spiffe/spiffe 665a28f (2026-07-01)',
  workload_api_wit_svid_profile: 'spiffe/spiffe 665a28f (2026-07-01)',
} as const;
