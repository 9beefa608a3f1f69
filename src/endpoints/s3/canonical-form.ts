/** Which bucket and folder are meant. */
import type { Given, CanonicalForm } from '../../options/define'
import { canonicalUrl, resourceName } from '../../options/canonical-form'
import type { options } from './options'
import { destinationOf } from './policy'

export function canonicalForm(given: Given<typeof options>): CanonicalForm {
  const { bucket, folder } = destinationOf(given)
  const { region, endpoint } = given.options
  // A bucket's name stands for one bucket in all regions: to name the region, as S3 asks for where it is another than
  // was thought, makes no other of it.
  return {
    servers: region === undefined ? [] : [region],
    resources: [resourceName(`${bucket}/${folder}`, { endpoint: canonicalUrl(endpoint) })],
    options: { folder: undefined, bucketName: undefined, region: undefined, endpoint: undefined },
  }
}
