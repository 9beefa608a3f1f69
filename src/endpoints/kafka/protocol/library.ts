/** Types of the client library (@platformatic/kafka) that requests and connections share. */
import type { API, SASLOptions } from '@platformatic/kafka'

/** The exports that are used of the library; client.ts loads them on first use. */
export type Library = typeof import('../client-library')
/** One version of a request of the library. */
export type ApiCall<A extends unknown[], R> = API<A, R>
export type SaslOptions = SASLOptions
