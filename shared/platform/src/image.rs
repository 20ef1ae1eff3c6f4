//! Launch templates and images.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::describe_images::DescribeImagesError;
use aws_sdk_ec2::operation::describe_launch_template_versions::DescribeLaunchTemplateVersionsError;
use aws_sdk_ec2::types::{Image, ResponseLaunchTemplateData};
use domain::config::LaunchTemplate;
use jiff::Timestamp;

/// The content of a launch template's version, with its image alias resolved. None if the version does not exist.
pub(crate) async fn template(
    ec2: &Client,
    template: &LaunchTemplate,
) -> Result<Option<ResponseLaunchTemplateData>, SdkError<DescribeLaunchTemplateVersionsError>> {
    let ask = ec2.describe_launch_template_versions().launch_template_id(template.id.as_str());
    let answer = ask.versions(template.version.to_string()).resolve_alias(true).send().await?;
    let found = answer.launch_template_versions.unwrap_or_default().into_iter().next();
    Ok(found.and_then(|version| version.launch_template_data))
}

/// An image. None if it does not exist.
pub(crate) async fn image(ec2: &Client, id: &str) -> Result<Option<Image>, SdkError<DescribeImagesError>> {
    match ec2.describe_images().image_ids(id).send().await {
        Err(error) if error.code().is_some_and(|code| code.starts_with("InvalidAMIID")) => Ok(None),
        answer => Ok(answer?.images.unwrap_or_default().into_iter().next()),
    }
}

/// The value of a tag, which `make build-image` sets.
pub(crate) fn tagged<'a>(image: &'a Image, key: &str) -> Option<&'a str> {
    let tags = image.tags.as_deref().unwrap_or_default();
    tags.iter().find(|tag| tag.key.as_deref() == Some(key)).and_then(|tag| tag.value.as_deref())
}

/// When GitHub published the runner in the image, if a tag says so.
pub(crate) fn runner_released_at(image: &Image) -> Option<Timestamp> {
    tagged(image, "drover:runner-released")?.parse().ok()
}

/// When the image was created. None if EC2's date has an unknown form.
pub(crate) fn created_at(image: &Image) -> Option<Timestamp> {
    image.creation_date.as_deref().and_then(|date| date.parse().ok())
}
