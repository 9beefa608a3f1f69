/** Which bucket and folder are meant. */
import type { Given, Meaning } from '../../options/define'
import { serverUrl, thing } from '../../options/meaning'
import type { options } from './options'
import { destinationOf } from './policy'

export function meaning(given: Given<typeof options>): Meaning {
  const { bucket, folder } = destinationOf(given)
  const { region, endpoint } = given.options
  // A bucket's name stands for one bucket in all regions: to name the region, as S3 asks for where it is another than
  // was thought, makes no other of it.
  return {
    members: region === undefined ? [] : [region],
    things: [thing(`${bucket}/${folder}`, { endpoint: serverUrl(endpoint) })],
    options: { folder: undefined, bucketName: undefined, region: undefined, endpoint: undefined },
  }
}
