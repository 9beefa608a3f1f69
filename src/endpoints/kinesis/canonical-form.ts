/** Which stream is meant, and which of its shards. */
import type { Given, CanonicalForm, Role } from '../../options/define'
import { canonicalUrl, resourceName } from '../../options/canonical-form'
import type { KinesisOptions } from './options'
import { addressOf, streamNames } from './settings'

export function canonicalForm(given: Given<KinesisOptions>, role: Role): CanonicalForm {
  const all = streamNames(given)
  const named = all.find((text) => text.startsWith('arn:')) ?? all[0] ?? ''
  const { options } = given
  // An ARN has its region in it.
  const region = regionOf(named) ?? options.region
  return {
    resources: [resourceName(named, { region, endpoint: canonicalUrl(options.endpoint) })],
    options: {
      streamName: undefined,
      streamArn: undefined,
      region: undefined,
      endpoint: undefined,
      ...(role === 'sink'
        ? {}
        : {
            shard: options.shard.length === 0 ? undefined : [...new Set(options.shard)].sort().join(','),
            leasesEndpoint: canonicalUrl(options.leasesEndpoint),
            leasesRegion: options.leasesRegion === region ? undefined : options.leasesRegion,
          }),
    },
  }
}

function regionOf(named: string): string | undefined {
  try {
    return addressOf(named).region
  } catch {
    return undefined
  }
}

/** Streams of one name may be those of two accounts. */
export function loops(
  { options: from }: Given<KinesisOptions>,
  { options: to }: Given<KinesisOptions>,
  same: boolean,
): boolean {
  return same && from.profile === to.profile && from.roleArn === to.roleArn && from.accessKeyId === to.accessKeyId
}
